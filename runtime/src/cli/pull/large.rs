//! What becomes of a result that is large or saved: it is printed like any other, or a file of its own.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use tokio::sync::OnceCell;

use super::{Args, Form, Shown, line};
use crate::cli::output::Output;
use crate::cli::save::Folder;
use crate::client::large::LargeItems;
use crate::client::{Client, ClientError, PulledResult, Reference};
use crate::frame::json::to_json;
use crate::frame::large::{self, MAX_WHOLE};
use crate::name::ChainName;

/// How many results are saved side by side.
const SAVED: usize = 4;

/// Makes results ready to be printed, or saves them.
pub(super) struct Desk<'a> {
    client: Client,
    chain: &'a ChainName,
    form: &'a Form,
    folder: Option<Arc<Folder>>,
    output: &'a Output,
    items: OnceCell<LargeItems>,
    /// `true` once the user knows how to save large results.
    is_told: Cell<bool>,
}

/// A result that is ready.
pub(super) enum Ready<T> {
    /// A line to print. The result is taken once its reader has the line.
    Line(Vec<u8>, PulledResult<T>),
    /// A file that was saved, and a line about it. The result is taken.
    Saved(Vec<u8>, PulledResult<T>),
    /// The chain does not have the bytes of the result, and never will.
    Lost(ClientError, PulledResult<T>),
}

impl<'a> Desk<'a> {
    pub(super) fn new(client: Client, args: &'a Args, output: &'a Output) -> anyhow::Result<Self> {
        let open = |path: &Path| {
            if path.exists() && !path.is_dir() {
                bail!(
                    "cannot save results in `{}`: it is no folder; name one, which is made if it is missing",
                    path.display()
                );
            }
            let opened = Folder::open(path);
            opened.map_err(|error| anyhow!("cannot save results in `{}`: {error}", path.display()))
        };
        let folder = args.large.save.as_deref().map(open).transpose()?.map(Arc::new);
        let (chain, form) = (&args.chain, &args.form);
        Ok(Self { client, chain, form, folder, output, items: OnceCell::new(), is_told: Cell::new(false) })
    }

    /// Returns how many results are made ready at once. Those that are printed keep their order.
    pub(super) fn side_by_side(&self) -> usize {
        if self.folder.is_some() { SAVED } else { 1 }
    }

    /// Returns `true` if a result can be printed as it is.
    pub(super) fn is_ready<T: Shown>(&self, result: &T) -> bool {
        result.large().is_none() && (self.folder.is_none() || !result.is_saved())
    }

    /// Fetches the bytes of a result if it is a large one, and saves it if results are saved.
    ///
    /// An error means that the result is given back.
    pub(super) async fn ready<T: Shown>(&self, mut pulled: PulledResult<T>) -> anyhow::Result<Ready<T>> {
        if let Some(folder) = self.folder.as_ref().filter(|_| pulled.result.is_saved()) {
            return match Box::pin(self.save(folder, &pulled)).await {
                Ok(line) => Ok(Ready::Saved(line, pulled)),
                Err(error) => or_lost(error, pulled),
            };
        }
        if let Some(reference) = pulled.result.large().cloned() {
            self.check_printed(&reference, pulled.result.id())?;
            match self.items().await?.read(&reference).await {
                Ok(item) => pulled.result.set_item(item),
                Err(error) => return or_lost(error.into(), pulled),
            }
        }
        Ok(Ready::Line(pulled.result.show(self.chain, self.form)?, pulled))
    }

    async fn items(&self) -> Result<&LargeItems, ClientError> {
        self.items.get_or_try_init(|| LargeItems::of(&self.client, self.chain)).await
    }

    fn check_printed(&self, reference: &Reference, id: &str) -> anyhow::Result<()> {
        let (chain, size) = (self.chain, reference.size);
        if size > MAX_WHOLE {
            return Err(anyhow!(
                "the result of item {id} has {size} bytes, and no more than {MAX_WHOLE} are printed; it was given back, and \
                 `pcluster pull {chain} --output DIR` saves it as a file"
            ));
        }
        if !self.is_told.replace(true) {
            let size = bytesize::ByteSize(size).display().iec();
            let note = format!("a result has {size}; `pcluster pull {chain} --output DIR` saves each result as a file");
            self.output.note(&note);
        }
        Ok(())
    }

    /// Saves a result. Returns the line about it.
    async fn save<T: Shown>(&self, folder: &Arc<Folder>, pulled: &PulledResult<T>) -> anyhow::Result<Vec<u8>> {
        let result = &pulled.result;
        let failed = |error: &dyn std::fmt::Display| {
            let (id, folder) = (result.id(), folder.path().display());
            anyhow!("cannot save the result of item {id} in `{folder}`: {error}; it was given back")
        };
        let mut draft = folder.begin().map_err(|error| failed(&error))?;
        match result.large() {
            Some(reference) => match write_large(self.items().await?, reference, draft.file()).await {
                Err(ClientError::ItemFile { error, .. }) => return Err(failed(&error)),
                written => written?,
            },
            None => write(draft.file(), result.content()).await.map_err(|error| failed(&error))?,
        }
        anyhow::ensure!(pulled.is_held(), "another puller may have the result of item {}", result.id());
        let (folder, id) = (Arc::clone(folder), result.id().to_owned());
        // The disk may be slow.
        let saved = tokio::task::spawn_blocking(move || folder.finish(draft, &id)).await?;
        let path = saved.map_err(|error| failed(&error))?;
        let shown = path.to_string_lossy();
        if !self.form.meta && !self.output.is_json() {
            return Ok(line(&shown));
        }
        let mut about: serde_json::Map<_, _> = serde_json::from_str(&result.meta(self.chain)?)?;
        about.retain(|key, _| (self.form.meta || key == "id") && !matches!(key.as_str(), "item" | "large"));
        about.insert("file".to_owned(), shown.into());
        Ok(line(&serde_json::to_string(&about)?))
    }
}

/// Writes a large item as it is saved: bytes and texts as they are, any other item as JSON.
pub(in crate::cli) async fn write_large(
    items: &LargeItems,
    reference: &Reference,
    file: &mut File,
) -> Result<(), ClientError> {
    if reference.form != large::Form::Cbor {
        return items.fetch(reference, file).await;
    }
    let item = items.read(reference).await?;
    let written = write(file, format!("{}\n", to_json(&item)).into_bytes()).await;
    written.map_err(|error| ClientError::ItemFile { what: "write a file", error: error.into() })
}

/// Writes bytes to a file, away from the tasks that wait for messages.
async fn write(file: &File, bytes: Vec<u8>) -> io::Result<()> {
    let mut file = file.try_clone()?;
    tokio::task::spawn_blocking(move || file.write_all(&bytes)).await.map_err(io::Error::other)?
}

/// Returns a result as lost if its bytes are gone or wrong.
fn or_lost<T>(error: anyhow::Error, pulled: PulledResult<T>) -> anyhow::Result<Ready<T>> {
    match error.downcast() {
        Ok(error @ (ClientError::LargeMissing { .. } | ClientError::LargeDamaged { .. })) => {
            Ok(Ready::Lost(error, pulled))
        }
        Ok(error) => Err(error.into()),
        Err(error) => Err(error),
    }
}
