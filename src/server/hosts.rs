//! Under which names this server may be addressed: against DNS rebinding and foreign pages.

use std::net::IpAddr;

/// Names and origins that are allowed beside IP addresses and `localhost`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Host names, without port.
    pub names: Vec<String>,
    /// Origins of foreign pages, such as `https://ward.example`.
    pub origins: Vec<String>,
}

impl Hosts {
    /// True for a `Host` header that names us. An IP address cannot be rebound, so each is allowed.
    pub fn allows_host(&self, host: &str) -> bool {
        let name = without_port(host);
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        literal.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.names.iter().any(|ours| ours.eq_ignore_ascii_case(name))
    }

    /// True for a page of ours (its origin is the host that is asked), or one that the configuration names.
    pub fn allows_origin(&self, origin: &str, host: &str) -> bool {
        let same = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
        same || self.origins.iter().any(|ours| ours.eq_ignore_ascii_case(origin))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_configured_names_are_allowed() {
        let hosts = Hosts { names: vec!["ward.local".into()], origins: vec!["https://ward.example".into()] };
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:80", "::1", "192.168.1.5", "ward.local:8080"]
        {
            assert!(hosts.allows_host(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil"] {
            assert!(!hosts.allows_host(host), "{host}");
        }
        assert!(hosts.allows_origin("http://127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(hosts.allows_origin("https://ward.example", "127.0.0.1:8080"));
        for origin in ["null", "http://127.0.0.1:9090", "https://evil.example", ""] {
            assert!(!hosts.allows_origin(origin, "127.0.0.1:8080"), "{origin}");
        }
    }
}
