//! The files that come with a program.

use std::path::Path;

use crate::archive::pack::{self, FilesError, Packed};
use crate::broker::plugins::Plugins;
use crate::chain::program::{Files, Program};
use crate::client::{Client, ClientError};
use crate::name::{Digest, StageName};

/// Packs the files of a program, which are relative to `base`. `None` if it has none, or their archive is stored already.
pub(super) async fn pack(
    client: Option<&Client>,
    base: &Path,
    stage: &StageName,
    program: &Program,
) -> Result<Option<Packed>, ClientError> {
    let paths = match &program.files {
        None => return Ok(None),
        Some(Files::Stored(digest)) => return stored(client, stage, digest).await.map(|()| None),
        Some(Files::Paths(paths)) => paths.clone(),
    };
    check(base, stage, program)?;
    let base = base.to_owned();
    let packed = tokio::task::spawn_blocking(move || pack::pack(&base, &paths));
    let packed = packed.await.unwrap_or_else(|error| Err(FilesError::Write(std::io::Error::other(error))));
    packed.map(Some).map_err(|error| ClientError::Files { stage: stage.clone(), error })
}

/// Checks that an archive is stored.
async fn stored(client: Option<&Client>, stage: &StageName, archive: &Digest) -> Result<(), ClientError> {
    let Some(client) = client else {
        return Err(ClientError::OnServer { stage: stage.clone(), what: format!("the archive `{archive}`") });
    };
    if Plugins::archives(&client.broker).has(archive).await? {
        return Ok(());
    }
    Err(ClientError::NoArchive { stage: stage.clone(), archive: archive.clone() })
}

/// Checks that a program that comes with its files is there.
pub(super) fn check(base: &Path, stage: &StageName, program: &Program) -> Result<(), ClientError> {
    match &program.files {
        Some(Files::Paths(paths)) if program.name.starts_with("./") => pack::check_program(base, paths, &program.name)
            .map_err(|error| ClientError::Files { stage: stage.clone(), error }),
        _ => Ok(()),
    }
}
