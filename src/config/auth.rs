//! `[auth]`: whose tokens are taken, with which keys, and where they may come.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::build::{Builder, credential_name};
use super::{Config, file, read_bounded};
use crate::server::jwks::{Address, certificates};
use crate::server::keys::{PublicKey, read_set};
use crate::server::tokens::{KeySettings, TrustedSettings};

/// Most entries of `[[auth.trust]]`.
const MAX_TRUSTED: usize = 16;

/// How often keys behind an address can be fetched, in minutes.
const REFRESH_MINUTES: std::ops::RangeInclusive<u64> = 5..=24 * 60;

impl Builder<'_> {
    pub(super) fn auth(&mut self, auth: file::Auth, config: &mut Config) {
        if let Some(file) = auth.secret_file {
            config.secret_file = self.path(file.get_ref());
            self.known_credential(&file, &config.secret_file);
        }
        if let Some(issuer) = auth.issuer {
            config.server.issuer = issuer;
        }
        if let Some(audience) = auth.audience {
            config.server.audience = audience;
        }
        if let Some(member) = auth.query_token.filter(|allowed| *allowed.get_ref()) {
            let said = "tokens are taken from addresses (`?token=`), which logs and histories of others keep: use a \
                        ticket where you can";
            config.warnings.add(self.text, &member.span(), said);
            config.server.tokens.in_query = true;
        }
        if let Some(extra) = auth.trust.get(MAX_TRUSTED) {
            self.problem(extra, format!("there are more than {MAX_TRUSTED} [[auth.trust]]"));
        }
        for trust in auth.trust.iter().take(MAX_TRUSTED) {
            if let Some(trusted) = self.trusted(trust, config) {
                config.server.tokens.trusted.push(trusted);
            }
        }
        if let Some(member) = auth.own_tokens.filter(|own| !*own.get_ref()) {
            if auth.trust.is_empty() {
                self.problem(
                    &member,
                    "without tokens of its own the bridge needs an [[auth.trust]], or nobody can sign in",
                );
            }
            config.server.tokens.only_trusted = true;
        }
    }

    fn trusted(&mut self, trust: &Spanned<file::Trust>, config: &Config) -> Option<TrustedSettings> {
        let wanted = trust.get_ref();
        let keys = match (&wanted.public_key_file, &wanted.jwks_file, &wanted.jwks_url) {
            (Some(file), None, None) => self.pem(file, wanted.kid.clone()),
            (None, Some(file), None) => self.key_set(file),
            (None, None, Some(url)) => self.address(url, wanted),
            _ => {
                self.problem(trust, "an [[auth.trust]] has one of `public_key_file`, `jwks_file` and `jwks_url`");
                None
            }
        };
        if wanted.kid.is_some() && wanted.public_key_file.is_none() {
            self.problem(trust, "`kid` belongs to a `public_key_file`; a key set has its own");
        }
        if wanted.jwks_ca_file.is_some() && wanted.jwks_url.is_none() {
            self.problem(trust, "`jwks_ca_file` belongs to a `jwks_url`");
        }
        let issuer = wanted.issuer.clone().unwrap_or_else(|| config.server.issuer.clone());
        let audience = wanted.audience.clone().unwrap_or_else(|| config.server.audience.clone());
        Some(TrustedSettings { issuer, audience, keys: keys? })
    }

    /// The text of a file that a member names.
    fn text_of(&mut self, member: &Spanned<String>) -> Option<String> {
        let path = self.path(member.get_ref());
        match read_bounded(&path) {
            Ok(text) => Some(text),
            Err(error) => {
                self.file_problem(member, format!("cannot read {}: {error}", path.display()));
                None
            }
        }
    }

    fn pem(&mut self, file: &Spanned<String>, kid: Option<String>) -> Option<KeySettings> {
        let text = self.text_of(file)?;
        match PublicKey::from_pem(&text, kid) {
            Ok(key) => Some(KeySettings::Fixed(Arc::from([key]))),
            Err(error) => {
                self.problem(file, format!("`{}` cannot check tokens: {error}", file.get_ref()));
                None
            }
        }
    }

    /// A credential is never made by the bridge: one that is not there is a mistake of the unit.
    fn known_credential(&mut self, place: &Spanned<String>, path: &Path) {
        if let Some(name) = credential_name(place.get_ref())
            && let Err(error) = std::fs::File::open(path)
        {
            let reason = format!(
                "the credential {} cannot be read: {error}; the unit loads it with `LoadCredential={name}:FILE`, and it is \
                 there while the service runs, for root and the service's user",
                path.display()
            );
            self.file_problem(place, reason);
        }
    }

    fn key_set(&mut self, file: &Spanned<String>) -> Option<KeySettings> {
        let text = self.text_of(file)?;
        match read_set(&text) {
            Ok(keys) => Some(KeySettings::Fixed(keys.into())),
            Err(error) => {
                self.problem(file, format!("`{}` cannot check tokens: {error}", file.get_ref()));
                None
            }
        }
    }

    fn address(&mut self, url: &Spanned<String>, wanted: &file::Trust) -> Option<KeySettings> {
        let roots = match &wanted.jwks_ca_file {
            Some(file) => {
                let text = self.text_of(file)?;
                match certificates(&text) {
                    Ok(certificates) => Some(certificates),
                    Err(error) => {
                        self.problem(file, format!("`{}` is no PEM file of certificates: {error}", file.get_ref()));
                        None
                    }
                }
            }
            None => None,
        };
        let minutes = self.within("jwks_refresh_minutes", wanted.jwks_refresh_minutes.as_ref(), REFRESH_MINUTES);
        match Address::parse(url.get_ref(), roots) {
            Ok(mut address) => {
                address.refresh = minutes.map_or(address.refresh, |minutes| Duration::from_secs(minutes * 60));
                Some(KeySettings::Address(address))
            }
            Err(error) => {
                self.problem(url, format!("`jwks_url`: {error}"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;

    /// What is told of a file, each line.
    fn told(text: &str, folder: &Path) -> Vec<String> {
        let problems = Config::parse(text, folder, &Place::default()).unwrap_err();
        problems.as_slice().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_mistake_about_tokens_is_told_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        put("private.pem", "-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n");
        put("certificate.pem", "-----BEGIN CERTIFICATE-----\nMC4=\n-----END CERTIFICATE-----\n");
        put("nothing.pem", "nothing");
        put("symmetric.json", r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"a"}]}"#);
        put("private.json", r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}]}"#);
        put("empty.json", r#"{"keys":[{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}]}"#);
        put("no.json", "[]");
        for (members, line, message) in [
            ("issuer = \"a\"", 2, "one of `public_key_file`, `jwks_file` and `jwks_url`"),
            ("public_key_file = \"private.pem\"", 3, "it is a private key"),
            ("public_key_file = \"certificate.pem\"", 3, "it is a certificate"),
            ("public_key_file = \"nothing.pem\"", 3, "it is no public key"),
            ("public_key_file = \"none.pem\"", 3, "cannot read"),
            ("jwks_file = \"symmetric.json\"", 3, "a symmetric key"),
            ("jwks_file = \"private.json\"", 3, "it is a private key"),
            ("jwks_file = \"empty.json\"", 3, "no key that checks"),
            ("jwks_file = \"no.json\"", 3, "no JSON Web Key Set"),
            ("jwks_file = \"symmetric.json\"\njwks_url = \"https://a.example\"", 2, "one of"),
            ("jwks_url = \"http://login.example/jwks\"", 3, "for this machine alone"),
            ("jwks_url = \"login\"", 3, "not an address"),
            ("jwks_url = \"https://a.example\"\njwks_refresh_minutes = 1", 4, "can be 5 to 1440"),
            ("jwks_url = \"https://a.example\"\njwks_ca_file = \"nothing.pem\"", 4, "no PEM file of certificates"),
            ("jwks_url = \"https://a.example\"\nkid = \"a\"", 2, "`kid` belongs to"),
            ("public_key_file = \"nothing.pem\"\njwks_ca_file = \"a\"", 2, "`jwks_ca_file` belongs to"),
            ("jwks_url = \"https://a.example\"\nsecret = \"a\"", 4, "secret"),
        ] {
            let problems = told(&format!("\n[[auth.trust]]\n{members}\n"), dir.path());
            let found =
                problems.iter().any(|told| told.starts_with(&format!("line {line}:")) && told.contains(message));
            assert!(found, "{members}: {problems:?}");
        }
        let problems = told("[auth]\nown_tokens = false\n", dir.path());
        assert!(problems[0].starts_with("line 2:") && problems[0].contains("nobody can sign in"), "{problems:?}");
    }

    #[test]
    fn a_token_in_an_address_is_allowed_with_a_warning_only() {
        let read = |text| Config::parse(text, Path::new("."), &Place::default()).unwrap();
        assert!(!read("").server.tokens.in_query && !read("[auth]\nquery_token = false").server.tokens.in_query);
        let config = read("[auth]\nquery_token = true");
        assert!(config.server.tokens.in_query);
        assert!(config.warnings.as_slice()[0].to_string().starts_with("line 2: tokens are taken from addresses"));
    }
}
