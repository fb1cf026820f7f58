//! Errors about wrong arguments.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::exit::Exit;
use super::output::{Output, OutputError};
use super::{Cli, failed};
use crate::name::nearest;

/// Commands that destroy something. A mistyped word never gets one of these as a suggestion.
const HARMFUL: [&str; 3] = ["reset", "stop", "drop"];

/// Prints the help, or the error about the arguments.
pub fn answer(mut error: clap::Error) -> ExitCode {
    if error.kind() == ErrorKind::InvalidUtf8
        && let Some(argument) = std::env::args_os().find(|argument| argument.to_str().is_none())
    {
        error = Cli::command().error(ErrorKind::InvalidUtf8, format!("`{}` is not UTF-8", argument.display()));
    }
    honest(&mut error);
    let printed = error.print().and_then(|()| io::stdout().flush());
    match printed {
        Ok(()) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Failed.status())),
        Err(error) => failed(&OutputError::from(error).into(), &Output::new(false)),
    }
}

/// Keeps only suggestions that are near enough and harmless.
fn honest(error: &mut clap::Error) {
    for (typed, suggested) in [
        (ContextKind::InvalidSubcommand, ContextKind::SuggestedSubcommand),
        (ContextKind::InvalidArg, ContextKind::SuggestedArg),
        (ContextKind::InvalidValue, ContextKind::SuggestedValue),
    ] {
        let Some(ContextValue::String(typed)) = error.get(typed) else { continue };
        let known: Vec<String> = match error.get(suggested) {
            Some(ContextValue::String(one)) => vec![one.clone()],
            Some(ContextValue::Strings(several)) => several.clone(),
            _ => continue,
        };
        let typed = typed.clone();
        let harmless = known.iter().map(String::as_str).filter(|name| !HARMFUL.contains(name));
        match nearest(&typed, harmless).map(str::to_owned) {
            Some(near) => error.insert(suggested, ContextValue::String(near)),
            None => error.remove(suggested),
        };
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn no_harmless_word_leads_to_harm() {
        for (arguments, near) in [
            (&["statsu"][..], Some("'status'")),
            (&["feeed", "a"], Some("'feed'")),
            (&["dead", "shwo", "a"], Some("'show'")),
            (&["status", "--jsn"], Some("'--json'")),
            (&["logs", "--level", "wran"], Some("'warn'")),
            (&["dead", "ls", "a", "--failure", "timout"], Some("'timeout'")),
            (&["history"], None),
            (&["delete"], None),
            (&["top"], None),
            (&["rest", "a"], Some("'test'")),
            (&["rset", "a"], None),
            (&["remove"], None),
            (&["dead", "drops", "a"], None),
            (&["dead", "delete", "a"], None),
        ] {
            let mut error = Cli::try_parse_from([&["pcluster"], arguments].concat()).expect_err("not a command");
            honest(&mut error);
            let said = error.to_string();
            match near {
                Some(near) => assert!(said.contains(&format!("exists: {near}")), "{arguments:?}: {said}"),
                None => assert!(!said.contains("tip:"), "{arguments:?}: {said}"),
            }
        }
    }
}
