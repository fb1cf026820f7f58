//! `pcluster check`, and the places of mistakes that other commands tell

use std::collections::BTreeSet;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::output::{Output, count};
use super::{Context, build};
use crate::build::BuildError;
use crate::build::language::Language;
use crate::chain::review::{self, Review};
use crate::client::deploy::check::{Findings, Unchecked, manifest_text};
use crate::client::{ClientError, Package};
use crate::diagnostic::{Diagnostic, Severity, Source};
use crate::engine::inspect::InspectError;

/// The name of standard input among files.
const STDIN: &str = "-";

/// Check a chain without a server, and tell all mistakes at once
///
/// All is checked that `pcluster deploy` can check without a server: the manifest, plugins, files of programs, grants, and by the
/// schemas in plugins whether each stage takes what the one before gives. Each mistake is shown with its line and what to write
/// instead. What only a server knows, such as buckets, is listed as not checked. Nothing is built, unless --build is given.
///
/// With --json each mistake is an object on a line of its own, for editors: file, line, column, end (after the last character),
/// severity (error or note), code, message and help. Lines and columns count from 1, columns in characters.
///
/// Exit status: 0 if nothing is wrong, 1 if there are mistakes, 4 if there is no such file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pcluster check\n  pcluster check orders/ --build\n  \
    pcluster check --json chain.toml | jq .message\n  pcluster check - < chain.toml")]
pub struct Args {
    /// The manifest, a folder with a `chain.toml`, or - for standard input
    #[arg(value_name = "CHAIN.TOML", default_value = "chain.toml")]
    manifest: PathBuf,
    /// Build the plugins first that the manifest names by their folders
    #[arg(long)]
    build: bool,
    /// Do not compare what stages give with what the next take
    #[arg(long)]
    no_contracts: bool,
    #[command(flatten)]
    how: build::How,
}

/// What was found in a manifest.
struct Checked {
    source: Source,
    /// Mistakes and notes.
    found: Vec<Diagnostic>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let checked = check(&args, context).await?;
    let Checked { source, found } = &checked;
    let output = &context.output;
    let mistakes = found.iter().filter(|found| found.severity == Severity::Error).count() as u64;
    for found in found {
        match found.severity {
            _ if output.is_json() => output.line(&source.document(found))?,
            Severity::Error => output.told(&source.told(found, is_colored())),
            Severity::Note => output.note(&format!("note: {}", found.text())),
        }
    }
    let shown = args.manifest.display();
    if mistakes > 0 {
        let at_least = if mistakes >= review::MOST as u64 { "at least " } else { "" };
        return Err(anyhow!("`{shown}` has {at_least}{}", count(mistakes, "mistake")));
    }
    if !output.is_json() {
        output.data(&format!("`{shown}` has no mistakes"))?;
    }
    Ok(())
}

/// Shows the places of the mistakes in a manifest of which one was told.
pub(super) fn show_places(error: &anyhow::Error, output: &Output) {
    let (ClientError::Manifest { path, .. } | ClientError::Chain { path, .. }) = (match error.downcast_ref() {
        Some(error) => error,
        None => return,
    }) else {
        return;
    };
    // A manifest from memory has no file.
    let Ok((path, text)) = manifest_text(path) else { return };
    let source = Source::new(path.display().to_string(), text.clone());
    let (told, is_colored) = (error.to_string(), is_colored());
    let (first, others): (Vec<Diagnostic>, Vec<Diagnostic>) =
        Review::of(&text).mistakes.into_iter().partition(|mistake| told.ends_with(&mistake.text()));
    for mistake in &first {
        output.told(&source.line(mistake, is_colored));
    }
    for mistake in &others {
        output.told(&source.also(mistake, is_colored));
    }
}

/// Returns `true` if what is told on standard error may have colors.
pub(super) fn is_colored() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

async fn check(args: &Args, context: &Context) -> anyhow::Result<Checked> {
    let is_stdin = args.manifest.as_os_str() == STDIN;
    let (path, text) = if is_stdin { (PathBuf::new(), stdin()?) } else { manifest_text(&args.manifest)? };
    let review = Review::of(&text);
    let shown = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let mut found = review.mistakes.clone();
    if let Some(sound) = &review.sound {
        let can_build = args.build && !is_stdin && found.is_empty();
        let package =
            if can_build { build::package(&path, args.how, context).await? } else { Package::file(path.clone()) };
        let base = path.parent().unwrap_or(Path::new(""));
        let findings = package.check(base, sound, &review.wrong, args.no_contracts).await;
        found.extend(notes(&review, &findings));
        found.extend(findings.wrong.iter().map(|(stage, error)| mistake(&review, *stage, error)));
    }
    found.sort_by_key(|found| (found.severity == Severity::Note, found.span.start, found.span.end));
    Ok(Checked { source: Source::new(shown, text), found })
}

fn stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(crate::file::TEXT_MAX)
        .read_to_string(&mut text)
        .map_err(|error| anyhow!("cannot read standard input: {error}"))?;
    Ok(text)
}

/// Returns what was not checked. A folder that cannot be built is a mistake.
fn notes(review: &Review, findings: &Findings) -> Vec<Diagnostic> {
    let mut told = BTreeSet::new();
    let mut notes = Vec::new();
    for (stage, unchecked) in &findings.unchecked {
        let name = review.sound.as_ref().map(|(manifest, _)| manifest.stages[*stage].name.as_str()).unwrap_or_default();
        match unchecked {
            Unchecked::Server(what) => {
                let text = format!("not checked, as only a server knows it: stage `{name}`: {what}");
                notes.push(Diagnostic::note("unchecked", review.span(*stage, &["allow", "plugin", "files"], ""), text));
            }
            Unchecked::Folder(folder) if !told.insert(folder) => {}
            Unchecked::Folder(folder) => {
                let span = review.span(*stage, &["plugin"], "");
                notes.push(match Language::of(folder) {
                    Some(_) => {
                        let text = format!(
                            "not checked, as it is not built: the plugin of `{}`; `--build` builds it first",
                            folder.display()
                        );
                        Diagnostic::note("unchecked", span, text)
                    }
                    None => Diagnostic::error("plugin", span, BuildError::NoPlugin(folder.clone()).to_string()),
                });
            }
        }
    }
    notes.extend(findings.doubts.iter().map(|doubt| Diagnostic::note("contract", 0..0, doubt.clone())));
    notes
}

/// Returns a mistake of a stage with its place.
fn mistake(review: &Review, stage: Option<usize>, error: &ClientError) -> Diagnostic {
    let text = error.to_string();
    let Some(stage) = stage else { return Diagnostic::error("schema", review.input(), text) };
    let (code, keys): (_, &[&str]) = match error {
        ClientError::Contract(_) => ("contract", &["name"]),
        ClientError::Schema { .. } => ("schema", &["schema", "plugin"]),
        ClientError::NoSchemaFile(_) => ("schema", &["schema"]),
        ClientError::Files { .. } => ("files", &["files"]),
        ClientError::Plugin { error: InspectError::NoSuchTask { .. }, .. } => ("no-task", &["task", "name"]),
        ClientError::Plugin { error: InspectError::Memory { .. }, .. } => ("memory", &["memory", "plugin"]),
        ClientError::Plugin { error: InspectError::NotGranted { .. }, .. } => ("grants", &["allow", "plugin"]),
        _ => ("plugin", &["plugin"]),
    };
    Diagnostic::error(code, review.span(stage, keys, &text), text)
}
