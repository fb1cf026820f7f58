//! `pcluster test`

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::check::is_colored;
use super::exit::{Interrupted, NotFound, Usage};
use super::output::{Output, count, seconds};
use super::{Context, build};
use crate::cases::case::Case;
use crate::cases::file::{self, Must};
use crate::cases::junit;
use crate::cases::run::{self as cases, Reached, Verdict};
use crate::cases::update::update;
use crate::client::Here;
use crate::client::deploy::check::manifest_text;
use crate::shutdown;

/// A first case, for those who have none.
const FIRST: &str = "[[case]]\nname = \"the first\"\nitems = ['example']\n\n[case.expect]\nresults = []";
/// The most log lines that are shown of a case that fails.
const LINES: usize = 10;

/// Run the cases of a chain, without a server
///
/// A case is what is fed to a chain and what must come of it: results, what single stages give, dead letters. Cases are in files
/// `cases/*.toml` beside the manifest. They run in this process, side by side, through the tasks, frames and attempts of a node,
/// each with its items packed into one message and one by one. Nothing outside is reached: the case answers what tasks call
/// (`[[case.calls]]`) and stands in for programs (`[[case.programs]]`), and no attempt waits for its back-off.
///
/// What differs from what is expected is told by its path, as in `results[1]/total: expected 5, got 4`. So are a call without an
/// answer, and an answer that nobody asked for. Of a case that `pcluster replay --cases` wrote, its folder is moved to `cases/`.
///
/// Exit status: 0 if all cases passed, 1 if some failed, 2 if a file of cases is wrong, 4 if there is no case.
#[derive(Debug, clap::Args)]
#[command(after_help = "A case, in cases/orders.toml:\n\n  [[case]]\n  name = \"lines are summed\"\n  \
    items = [{ id = 1, lines = [2, 3] }]\n\n  [case.expect]\n  results = [{ id = 1, total = 5 }]\n\n\
    Examples:\n  pcluster test\n  pcluster test orders/ --filter sum\n  pcluster test --update && git diff cases/\n  \
    pcluster test --junit report.xml")]
pub struct Args {
    /// The manifest, or a folder with a `chain.toml`
    #[arg(value_name = "CHAIN.TOML", default_value = "chain.toml")]
    manifest: PathBuf,
    /// Only the cases with this text in their names or files
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Write what cases give into their files, as what they expect from now on. All else in the files stays as it is
    #[arg(long)]
    update: bool,
    /// File for a report in the format of `JUnit`, which CI systems read
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Say only which cases failed
    #[arg(short, long)]
    quiet: bool,
    /// Do not compare what stages give with what the next take
    #[arg(long)]
    no_contracts: bool,
    #[command(flatten)]
    how: build::How,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let output = &context.output;
    let here = build::package(&args.manifest, args.how, context).await?.here(args.no_contracts).await?;
    let all = read(&args, &here, output)?;
    let cases = chosen(&args, &all)?;
    let settings = super::run::settings(&here, context)?;
    let began = jiff::Timestamp::now().to_string();
    let started = Instant::now();
    let ran = tokio::select! {
        ran = cases::run(&here, &settings, &cases) => ran?,
        signal = shutdown::requested() => return Err(Interrupted::by(signal).into()),
    };
    let took = started.elapsed();
    let mut ran: Vec<(&Case, Verdict)> = cases.iter().zip(ran).collect();
    if args.update {
        write(&mut ran, output)?;
    }
    if let Some(file) = &args.junit {
        let document = junit::document(here.chain.name.as_str(), &report(&ran), took, &began);
        let written = std::fs::write(file, document);
        written.map_err(|error| anyhow!("cannot write the report `{}`: {error}", file.display()))?;
    }
    tell(&args, &here, &ran, took, output)
}

/// Reads all cases. Tells all mistakes.
fn read(args: &Args, here: &Here, output: &Output) -> anyhow::Result<Vec<Case>> {
    let (manifest, _) = manifest_text(&args.manifest)?;
    let folder = manifest.parent().unwrap_or(Path::new(""));
    let must = if args.update { Must::Feed } else { Must::Expect };
    let cases = match file::read(folder, &here.chain, must) {
        Ok(cases) => cases,
        Err(faults) => {
            if output.is_json() {
                faults.documents().try_for_each(|document| output.line(&document))?;
            } else {
                faults.told(is_colored()).iter().for_each(|told| output.told(told));
            }
            let mistakes = count(faults.count() as u64, "mistake");
            return Err(Usage(format!("the cases of chain `{}` have {mistakes}, so none ran", here.chain.name)).into());
        }
    };
    if cases.is_empty() {
        let folder = folder.join(file::FOLDER);
        let first = folder.join("first.toml");
        let problem = format!(
            "there is no case in `{}`; write the first into `{}`, and `pcluster test --update` adds what it gives:\n\n{FIRST}",
            folder.display(),
            first.display(),
        );
        return Err(NotFound(problem).into());
    }
    Ok(cases)
}

/// Returns the cases that the user asks for.
fn chosen(args: &Args, cases: &[Case]) -> Result<Vec<Case>, NotFound> {
    let Some(filter) = &args.filter else { return Ok(cases.to_vec()) };
    let is_chosen = |case: &&Case| case.name.contains(filter) || case.file.to_string_lossy().contains(filter);
    let chosen: Vec<Case> = cases.iter().filter(is_chosen).cloned().collect();
    if chosen.is_empty() {
        let names: Vec<String> = cases.iter().take(LINES).map(|case| format!("`{}`", case.name)).collect();
        let more = if cases.len() > LINES { ", …" } else { "" };
        return Err(NotFound(format!(
            "no case has `{filter}` in its name or file; there are {}{more}",
            names.join(", ")
        )));
    }
    Ok(chosen)
}

/// Writes what cases give into their files. Those that were written pass.
fn write(ran: &mut [(&Case, Verdict)], output: &Output) -> anyhow::Result<()> {
    let whole: Vec<_> = ran.iter().filter(|(_, ran)| ran.is_whole).map(|(case, ran)| (*case, &ran.outcome)).collect();
    for changed in update(&whole)? {
        output.note(&format!("updated `{}` in {}: {}", changed.name, changed.file.display(), changed.keys.join(", ")));
    }
    for (_, ran) in ran.iter_mut().filter(|(_, ran)| ran.is_whole) {
        ran.wrong.clear();
    }
    Ok(())
}

/// Returns what a report says of the cases.
fn report(ran: &[(&Case, Verdict)]) -> Vec<junit::Tested> {
    let of_case = |(case, ran): &(&Case, Verdict)| junit::Tested {
        name: case.name.clone(),
        file: case.file.display().to_string(),
        line: case.line,
        took: ran.took,
        problems: ran.wrong.clone(),
    };
    ran.iter().map(of_case).collect()
}

/// Tells what became of the cases.
fn tell(args: &Args, here: &Here, ran: &[(&Case, Verdict)], took: Duration, output: &Output) -> anyhow::Result<()> {
    let mut covered = Reached::new();
    for (case, ran) in ran {
        ran.reached.iter().for_each(|(stage, reached)| covered.entry(stage.clone()).or_default().extend(reached));
        if output.is_json() {
            output.line(&serde_json::json!({
                "case": case.name, "file": case.file.display().to_string(), "line": case.line, "passed": ran.wrong.is_empty(),
                "ms": u64::try_from(ran.took.as_millis())?, "wrong": ran.wrong, "log": ran.log,
            }))?;
        } else if !ran.wrong.is_empty() {
            tell_failed(case, ran, output);
        }
    }
    let failed = ran.iter().filter(|(_, ran)| !ran.wrong.is_empty()).count() as u64;
    let passed = ran.len() as u64 - failed;
    if output.is_json() {
        let ms = u64::try_from(took.as_millis())?;
        output.line(&serde_json::json!({ "passed": passed, "failed": failed, "ms": ms, "covered": covered }))?;
    } else if !args.quiet && args.filter.is_none() {
        tell_covered(here, &covered, output);
    }
    let summary = format!("{passed} passed, {failed} failed in {}", seconds(took));
    if failed > 0 {
        return Err(anyhow!("{summary}"));
    }
    if !output.is_json() && !args.quiet {
        output.data(&summary)?;
    }
    Ok(())
}

/// Tells what is wrong with a case, and the last that its tasks have logged.
fn tell_failed(case: &Case, ran: &Verdict, output: &Output) {
    let indented = |text: &str| text.replace('\n', "\n    ");
    output.note(&format!("failed: {} ({}:{})", case.name, case.file.display(), case.line));
    for wrong in &ran.wrong {
        output.note(&format!("  {}", indented(wrong)));
    }
    for line in &ran.log[ran.log.len().saturating_sub(LINES)..] {
        output.note(&format!("  log: {}", indented(line)));
    }
}

/// Tells which stages and outcomes the cases have reached, and which stages they have not.
fn tell_covered(here: &Here, covered: &Reached, output: &Output) {
    for stage in &here.chain.stages {
        let reached = covered.get(&stage.name).map(|reached| reached.iter().copied().collect::<Vec<_>>().join(", "));
        match reached {
            Some(reached) => output.note(&format!("stage `{}`: {reached}", stage.name)),
            None => output.note(&format!("stage `{}`: no case reaches it", stage.name)),
        }
    }
}
