//! `vitalbridge contract`: writes what the server and its clients say to each other, as documents.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::server::contract::DOCUMENTS;

/// What is written, and where.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  vitalbridge contract > vitals.v1.json\n  vitalbridge contract --out docs/schema")]
pub(super) struct Args {
    /// Directory for all documents (vitals.v1.json, asyncapi.json, vitals.v1.d.ts); without it, the JSON Schema is
    /// printed.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Writes the documents, or prints the first of them.
pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(dir) = &args.out else {
        let [schema, ..] = DOCUMENTS;
        write!(out, "{}", (schema.text)())?;
        return Ok(());
    };
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for document in DOCUMENTS {
        let path = dir.join(document.file);
        fs::write(&path, (document.text)()).with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}
