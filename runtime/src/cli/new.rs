//! `pcluster new`

mod assemblyscript;
mod c;
mod cpp;
mod go;
mod javascript;
mod python;
mod reserved;
mod rust;
mod template;
mod typescript;
mod zig;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use super::exit::Usage;
use super::{Context, data_folder};
use crate::build::language::Language;
use crate::build::sdk::{self, Link};
use template::{Project, Sources, Template};

/// Start a plugin, or a chain of three, in a new folder
///
/// The folder builds, tests and runs as it is: sources with a task and its unit tests, a chain.toml, a case for
/// `pcluster test`, a README.md and a .gitignore. `pcluster dev` in the folder builds the plugin and runs the chain.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: pcluster new greet --lang python && cd greet && pcluster dev")]
pub struct Args {
    /// The folder, which is new or empty
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The language
    #[arg(long, value_enum, value_name = "LANGUAGE")]
    lang: Language,
    /// What the task does: turn an item into another, keep or drop it, make many of one, or use a state that is made once
    #[arg(long, value_enum, value_name = "TEMPLATE", default_value_t = Template::Map, conflicts_with = "chain")]
    template: Template,
    /// Start a chain of three plugins, each in a folder of its own
    #[arg(long)]
    chain: bool,
    /// The name of the chain and the task [default: the name of the folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// The first file of cases.
const CASES: &str = "cases/first.toml";

/// A file of a new folder: its path and its text.
type File = (String, String);
/// Makes a link in a project.
type Lead = Box<dyn Fn(&Path) -> io::Result<()>>;

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let project = Project::new(&name(args)?, args.lang).map_err(|problem| Usage(named(&problem, args)))?;
    let mut files = if args.chain { chain(&project, args.lang) } else { plugin(&project, args.lang, args.template) };
    let is_new = check(&args.folder)?;
    // First: what fails here leaves no folder behind.
    let places =
        if args.chain { Template::CHAIN.map(|(task, _)| format!("{task}/")).to_vec() } else { vec![String::new()] };
    files.extend(lead_to_sdk(args.lang, &places)?);
    let lead = link_to_sdk(args.lang, context)?;
    let written = write(&args.folder, is_new, || {
        write_files(&args.folder, &files)?;
        places.iter().try_for_each(|place| lead(&args.folder.join(place)))
    });
    written.with_context(|| format!("cannot write into `{}`", args.folder.display()))?;
    if context.output.is_json() {
        let names: Vec<&String> = files.iter().map(|(name, _)| name).collect();
        let document = json!({ "folder": args.folder, "name": project.name, "language": args.lang, "files": names });
        return Ok(context.output.document(&document)?);
    }
    let folder = args.folder.display();
    context
        .output
        .note(&format!("made `{folder}`; its README.md says how to test and run it: `pcluster dev {folder}`"));
    Ok(())
}

/// Returns the name of the project: the one that is given, else that of the folder.
fn name(args: &Args) -> anyhow::Result<String> {
    if let Some(name) = &args.name {
        return Ok(name.clone());
    }
    let path = std::path::absolute(&args.folder)?;
    let path = path.canonicalize().unwrap_or(path);
    Ok(path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// Adds to the fault of a name how to give another.
fn named(problem: &str, args: &Args) -> String {
    if args.name.is_some() {
        return problem.to_owned();
    }
    format!("{problem}; `--name NAME` names it apart from its folder")
}

/// Refuses a folder that holds anything. Returns `true` if the folder is still to be made.
fn check(folder: &Path) -> anyhow::Result<bool> {
    let shown = folder.display();
    match fs::read_dir(folder).map(Iterator::count) {
        Ok(0) => Ok(false),
        Ok(_) => Err(Usage(format!("`{shown}` holds something already; name a new or empty folder")).into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(Usage(format!("`{shown}` is a file; name a new or empty folder")).into())
        }
        Err(error) => Err(anyhow::Error::new(error).context(format!("cannot read `{shown}`"))),
    }
}

/// Writes into a folder. What was written is removed if not all can be.
fn write(folder: &Path, is_new: bool, all: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let written = all();
    if written.is_err() {
        // The error of the write is what matters.
        let _ = if is_new { fs::remove_dir_all(folder) } else { empty(folder) };
    }
    written
}

fn write_files(folder: &Path, files: &[File]) -> io::Result<()> {
    files.iter().try_for_each(|(name, text)| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, text)
    })
}

/// Removes all that a folder holds.
fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

/// Unpacks the SDK for Rust. Returns the files that let cargo find it from these folders, so that `cargo test` works at once.
fn lead_to_sdk(language: Language, places: &[String]) -> anyhow::Result<Vec<File>> {
    if language != Language::Rust {
        return Ok(Vec::new());
    }
    let text = sdk::cargo::configuration(&sdk::cargo::unpack(&data_folder()?)?);
    Ok(places.iter().map(|place| (format!("{place}{}", sdk::cargo::CONFIG), text.clone())).collect())
}

/// Returns what makes the link in a project by which it finds the SDK. Unpacks the SDK first.
fn link_to_sdk(language: Language, context: &Context) -> anyhow::Result<Lead> {
    if matches!(language, Language::TypeScript | Language::JavaScript)
        && let Some(package) = super::javascript(context)?
    {
        return Ok(Box::new(move |project| sdk::javascript::lead(project, &package)));
    }
    let Some(link) = Link::of(language) else { return Ok(Box::new(|_| Ok(()))) };
    let sdk = link.sdk.unpack(&data_folder()?)?;
    Ok(Box::new(move |project| link.make(project, &sdk)))
}

/// Returns the sources of a task.
fn sources(project: &Project, language: Language, template: Template) -> Sources {
    match language {
        Language::Rust => rust::sources(project, template),
        Language::Python => python::sources(project, template),
        Language::TypeScript => typescript::sources(project, template),
        Language::JavaScript => javascript::sources(project, template),
        Language::Go => go::sources(project, template),
        Language::C => c::sources(project, template),
        Language::Cpp => cpp::sources(project, template),
        Language::Zig => zig::sources(project, template),
        Language::AssemblyScript => assemblyscript::sources(project, template),
    }
}

/// Returns the files of a plugin with a chain of its own.
fn plugin(project: &Project, language: Language, template: Template) -> Vec<File> {
    let Sources { mut files, ignored, test, main } = sources(project, language, template);
    let Project { name, task } = project;
    let stage = template.stage(task, ".", task);
    let manifest = format!(
        "# A chain of one stage, which runs the plugin of this folder.\n{}\n{stage}",
        template::head(name, template.example())
    );
    let readme = format!(
        "# {name}\n\nA task of pcluster in {}: `{task}` in `{main}`. The chain that runs it is in `chain.toml`.\n\n{}",
        language.title(),
        template::commands(name, test, template.example())
    );
    files.extend([
        ("chain.toml".to_owned(), manifest),
        (CASES.to_owned(), template::cases(template, task)),
        ("README.md".to_owned(), readme),
        (".gitignore".to_owned(), ignored.to_owned()),
    ]);
    files
}

/// Returns the files of a chain of three plugins.
fn chain(project: &Project, language: Language) -> Vec<File> {
    let (mut files, mut stages, mut tests) = (Vec::new(), Vec::new(), "");
    for (task, template) in Template::CHAIN {
        let part = Project { name: task.to_owned(), task: task.to_owned() };
        let Sources { files: own, ignored, test, .. } = sources(&part, language, template);
        files.extend(own.into_iter().map(|(name, text)| (format!("{task}/{name}"), text)));
        files.push((format!("{task}/.gitignore"), ignored.to_owned()));
        stages.push(template.stage(task, task, task));
        tests = test;
    }
    let name = &project.name;
    let example = Template::Generator.example();
    let manifest = format!(
        "# A chain of three stages, each with a plugin in a folder beside this file.\n{}\n{}",
        template::head(name, example),
        stages.join("\n")
    );
    let readme = format!(
        "# {name}\n\nA chain of pcluster with three tasks in {}, each in a folder. `chain.toml` puts them together.\n\n{}",
        language.title(),
        template::commands(name, &format!("(cd split && {tests})"), example)
    );
    files.extend([
        ("chain.toml".to_owned(), manifest),
        (CASES.to_owned(), template::cases_of_chain()),
        ("README.md".to_owned(), readme),
    ]);
    files
}
