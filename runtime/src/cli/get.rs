//! `pcluster get`

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::Context;
use super::exit::Usage;
use super::output::Output;
use super::pull::large::write_large;
use super::save::Draft;
use crate::client::large::LargeItems;
use crate::client::{ClientError, Reference};
use crate::name::ChainName;

/// How much is printed at once.
const PIECE: usize = 1 << 20;

/// Fetch a large item, whose bytes are beside the queue, by its reference
///
/// Writes a byte string or a text as it is, and any other item as JSON, up to 1 GiB. Nothing is written before all bytes
/// are checked. The item stays where it is: `pcluster pull` takes the result that has it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pcluster get scans 01M8C10K4TVAAZAMQ49M90DCFH -o scan.tiff\n  \
    pcluster pull scans --refs -n 1 | xargs -0 pcluster get scans")]
pub struct Args {
    /// The chain
    chain: ChainName,
    /// The name of the large item, or its reference as `pcluster pull --refs` prints it
    #[arg(value_name = "REF")]
    reference: String,
    /// Write to this file, which must not exist; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let given = args.reference.trim();
    let written = given.starts_with('{').then(|| parse(given)).transpose()?;
    let client = context.client().await?;
    let reference = match written {
        Some(reference) => reference,
        None => client.find_large(&args.chain, given).await?,
    };
    let items = LargeItems::of(&client, &args.chain).await?;
    match args.output.as_deref().filter(|path| path.as_os_str() != "-") {
        Some(path) => save(&items, &reference, path).await,
        None => print(&items, &reference, &context.output).await,
    }
}

fn parse(given: &str) -> Result<Reference, Usage> {
    let reference: Reference = serde_json::from_str(given)
        .map_err(|error| Usage(format!("this is no reference to a large item: {error}; give its name instead")))?;
    Reference::parse(&reference.to_cbor()).map_err(|error| Usage(error.to_string()))
}

async fn save(items: &LargeItems, reference: &Reference, path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let exists = || anyhow!("there is a file `{shown}` already, and it is not overwritten");
    if path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::AlreadyExists => exists(),
        _ => anyhow!("cannot write `{shown}`: {error}"),
    };
    let mut draft = Draft::within(folder).map_err(failed)?;
    let written = items.held(reference, write_large(items, reference, draft.file())).await;
    written.map_err(|error| unwritten(error, &format!("`{shown}`")))?;
    let path = path.to_owned();
    let finished = tokio::task::spawn_blocking(move || draft.finish(&path)).await?;
    finished.map_err(failed)
}

/// Names the file that cannot be written.
fn unwritten(error: ClientError, shown: &str) -> anyhow::Error {
    match error {
        ClientError::ItemFile { error, .. } => anyhow!("cannot write {shown}: {error}"),
        error => error.into(),
    }
}

async fn print(items: &LargeItems, reference: &Reference, output: &Output) -> anyhow::Result<()> {
    // Nothing is printed before all of it is checked.
    let place = format!("a file in `{}`, which TMPDIR names; -o writes no other file", std::env::temp_dir().display());
    let mut file: File = tempfile::tempfile().map_err(|error| anyhow!("cannot write {place}: {error}"))?;
    let written = items.held(reference, write_large(items, reference, &mut file)).await;
    written.map_err(|error| unwritten(error, &place))?;
    file.seek(SeekFrom::Start(0))?;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(()),
            read => output.bytes(&piece[..read])?,
        }
    }
}
