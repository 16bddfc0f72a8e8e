//! Writes the manual pages and shell completions of the package from the command line's own definition:
//! `cargo run --example manual -- DIR` makes `DIR/man1/*.1`, `DIR/vitalbridge.bash`, `DIR/_vitalbridge` (zsh) and
//! `DIR/vitalbridge.fish`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// What no definition of an option can say, for the page of the program itself.
const SECTIONS: &str = r#".SH "EXIT STATUS"
.TP
\fB0\fR
It is done.
.TP
\fB1\fR
What was looked at is not as it should be: \fBdoctor\fR has warnings, \fBbuffer verify\fR or \fBbuffer export\fR met damage.
.TP
\fB2\fR
\fBdoctor\fR has errors.
.TP
\fB64\fR
The call is wrong.
.TP
\fB69\fR
Something that is needed is not there: bluetoothd, an adapter, the device.
.TP
\fB70\fR
A part failed.
.TP
\fB77\fR
The operating system does not allow it: a port, the state directory, the configuration. systemd tries again.
.TP
\fB78\fR
The configuration, or a profile, has problems, or the database is of a newer version. systemd does not start the service again after this one.
.SH FILES
.TP
\fI/etc/vitalbridge/vitalbridge.toml\fR
The configuration; every key is in /usr/share/doc/vitalbridge/config.md.
.TP
\fI/etc/vitalbridge/devices/\fR
Your own device profiles.
.TP
\fI/usr/share/vitalbridge/devices/\fR
The profiles that are built in, to read and to copy.
.TP
\fI/var/lib/vitalbridge/\fR
The database, the token secret, the certificate, the bonds.
.SH ENVIRONMENT
.TP
\fBVITALBRIDGE_LOG\fR
What is logged, over \fIlog.filter\fR of the configuration, such as \fIinfo,vitalbridge::sources=debug\fR.
.TP
\fBCREDENTIALS_DIRECTORY\fR
Where \fIcredential:NAME\fR of the configuration is; systemd sets it for the service.
.SH "SEE ALSO"
systemctl(1), journalctl(1), systemd-creds(1), bluetoothctl(1); /usr/share/doc/vitalbridge/install.md and operations.md
"#;

/// The page of a command and those of the commands below it.
fn pages(command: &Command, folder: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, folder)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut file = File::create(folder.join(format!("{name}.1")))?;
    let source = format!("vitalbridge {}", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone()).source(source).manual("vitalbridge").render(&mut file)?;
    if name == "vitalbridge" {
        file.write_all(SECTIONS.as_bytes())?;
    }
    Ok(())
}

/// The same without the commands `help`, which say what the pages say.
fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

/// Writes everything below `folder`.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    let man = folder.join("man1");
    fs::create_dir_all(&man)?;
    let mut command = without_help(vitalbridge::cli::command());
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "vitalbridge", folder)?;
    }
    command.build();
    pages(&command, &man)
}

fn main() -> io::Result<()> {
    match std::env::args_os().nth(1) {
        Some(folder) => write(Path::new(&folder)),
        None => Err(io::Error::other("the folder is missing: cargo run --example manual -- DIR")),
    }
}
