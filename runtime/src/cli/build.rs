//! `pcluster build`, and the builds that come before a deploy.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use futures_util::future::join_all;
use serde_json::json;

use super::exit::Usage;
use super::output::{Output, seconds};
use super::{Context, unless_told};
use crate::build::language::Language;
use crate::build::{self, BuildError, Built, Settings};
use crate::client::{Package, PluginFolder};
use crate::name::Digest;

/// The file name of a manifest.
const MANIFEST: &str = "chain.toml";

/// Build plugins: that of a folder, or all that a manifest names by their folders
///
/// The language of a folder shows in its files, such as Cargo.toml or clean.py. Prints the path of each plugin; `pcluster
/// inspect` shows what it holds. What was built from the same sources, tools and settings before is not built again.
/// `deploy` and `dev` build first, so this command is for a check or for the file.
///
/// A build keeps to the lock file of its dependencies. It does not see the settings of the shell, such as RUSTFLAGS or
/// PYTHONPATH.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: pcluster inspect \"$(pcluster build greet/)\"")]
pub struct Args {
    /// The folder of a plugin, a manifest, the folder of a manifest, or a file with tasks in TypeScript or JavaScript
    #[arg(value_name = "FOLDER|CHAIN.TOML|FILE", default_value = ".")]
    path: PathBuf,
    /// Write the plugin into this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

/// Flags of every command that builds.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct How {
    /// Use no network to build plugins
    #[arg(long)]
    offline: bool,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let folders = folders(&args.path)?;
    if let (Some(_), [_, _, ..]) = (&args.output, &*folders) {
        let message =
            format!("`{}` names {} plugins; name the folder of one with -o", args.path.display(), folders.len());
        return Err(Usage(message).into());
    }
    if context.settings.cache.is_none() && args.output.is_none() && !folders.is_empty() {
        let message = "`cache` is empty, so only the file of -o would keep the plugin; name one with -o FILE, or a folder for \
                       caches";
        return Err(Usage(message.to_owned()).into());
    }
    let output = &context.output;
    if folders.is_empty() {
        output.note(&format!("`{}` names no plugin by its folder; there is nothing to build", args.path.display()));
    }
    let mut documents = Vec::new();
    for built in build_all(folders, args.how, context, true).await? {
        let file = args.output.as_ref().unwrap_or(&built.file);
        if args.output.is_some() {
            write(file, &built.bytes)?;
        }
        if !output.is_json() {
            output.data(&file.display().to_string())?;
        }
        documents.push(document(&built, file));
    }
    if output.is_json() { Ok(output.document(&documents)?) } else { Ok(()) }
}

/// Returns the folders to build: those that a manifest names, or the folder or file itself.
fn folders(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let is_manifest =
        path.join(MANIFEST).is_file() || (path.is_file() && path.extension().is_some_and(|end| end == "toml"));
    if is_manifest {
        return Ok(Package::file(path).plugin_folders()?.into_iter().map(|folder| folder.path).collect());
    }
    if path.is_file() && Language::of_file(path).is_none() {
        let message = format!(
            "`{}` is neither a folder nor a manifest nor a source, so there is nothing to build",
            path.display()
        );
        return Err(Usage(message).into());
    }
    Ok(vec![path.to_owned()])
}

/// Returns the package of a manifest, with the plugins that it names by their folders. Builds them first.
pub(super) async fn package(manifest: &Path, how: How, context: &Context) -> anyhow::Result<Package> {
    Ok(package_of(manifest, how, context, true).await?.0)
}

/// Returns the package of a manifest as [`package`] does, and the files outside of the folders that tools have read. Tells nothing
/// but errors.
pub(super) async fn package_in_silence(
    manifest: &Path,
    how: How,
    context: &Context,
) -> anyhow::Result<(Package, Vec<PathBuf>)> {
    package_of(manifest, how, context, false).await
}

async fn package_of(
    manifest: &Path,
    how: How,
    context: &Context,
    is_told: bool,
) -> anyhow::Result<(Package, Vec<PathBuf>)> {
    let package = Package::file(manifest);
    // The deploy says what is wrong with the manifest.
    let Ok(named) = package.plugin_folders() else { return Ok((package, Vec::new())) };
    let mut built = build_all(named.iter().map(|folder| folder.path.clone()).collect(), how, context, is_told).await?;
    let read = built.iter_mut().flat_map(|built| std::mem::take(&mut built.read)).collect();
    let with = |package: Package, (folder, built): (PluginFolder, Built)| {
        package.with_built(folder.name, built.bytes, built.inputs)
    };
    Ok((named.into_iter().zip(built).fold(package, with), read))
}

/// Builds plugins side by side. Returns them in the order of their folders. Errors are told in any case.
async fn build_all(folders: Vec<PathBuf>, how: How, context: &Context, is_told: bool) -> anyhow::Result<Vec<Built>> {
    if folders.is_empty() {
        return Ok(Vec::new());
    }
    let (settings, _temporary) = settings(how, context, is_told)?;
    let each = folders.iter().map(|folder| async {
        let built = build::build(&settings, folder).await;
        if let (Ok(built), true) = (&built, is_told) {
            tell(built, &context.output);
        }
        built
    });
    // All go on if one fails, so that the next build has less to do.
    let ended = unless_told(async { Ok::<_, BuildError>(join_all(each).await) }).await?;
    let (mut all, mut failed) = (Vec::new(), None);
    for built in ended {
        match built {
            Ok(built) => all.push(built),
            Err(error) => {
                if let Some(before) = failed.replace(error) {
                    context.output.error(&before.into());
                }
            }
        }
    }
    failed.map_or(Ok(all), |error| Err(error.into()))
}

/// Returns the settings of builds, and the folder to keep while they run if the user has none for caches.
fn settings(how: How, context: &Context, is_told: bool) -> anyhow::Result<(Settings, Option<tempfile::TempDir>)> {
    let temporary = if context.settings.cache.is_none() { Some(tempfile::tempdir()?) } else { None };
    let cache = context.settings.cache.clone().or_else(|| temporary.as_ref().map(|folder| folder.path().to_owned()));
    // Tools run in another folder. A name without a folder is looked for on the PATH.
    let absolute = |path: &PathBuf| match path.components().count() {
        1 => path.clone(),
        _ => std::path::absolute(path).unwrap_or_else(|_| path.clone()),
    };
    let output = context.output.clone();
    let settings = Settings {
        cache: std::path::absolute(cache.unwrap_or_default())?,
        data: super::data_folder()?,
        python: context.settings.python.as_ref().map(absolute),
        javascript: super::javascript(context)?,
        is_offline: how.offline,
        is_announced: is_told,
        say: Box::new(move |text| output.note(text)),
    };
    Ok((settings, temporary))
}

/// Says that a plugin is there. Nothing is said of one that was there before.
fn tell(built: &Built, output: &Output) {
    if let Some(took) = built.took {
        let tasks: Vec<&str> = built.inspection.tasks.iter().map(|task| task.name.as_str()).collect();
        let size = ByteSize(built.bytes.len() as u64).display().iec();
        let (folder, took) = (built.folder.display(), seconds(took));
        output.note(&format!("built `{folder}` in {took}: {size}, with {}", tasks.join(", ")));
    }
}

fn document(built: &Built, file: &Path) -> serde_json::Value {
    json!({
        "folder": built.folder,
        "language": built.language,
        "file": file,
        "digest": Digest::of(&built.bytes),
        "inputs": built.inputs,
        "built": built.took.is_some(),
        "seconds": built.took.map(|took| took.as_secs_f64()),
        "tasks": built.inspection.tasks,
    })
}

/// Writes a plugin, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|error| anyhow::anyhow!("cannot write `{}`: {error}", path.display()))
}
