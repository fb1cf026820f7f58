//! The arguments of commands that read items.

use std::path::PathBuf;

use super::{InputFormat, Reading, delimiter};

/// Items on the command line, or how a file of them is read.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Items; each is JSON, or text if it is not JSON
    #[arg(value_name = "ITEM", allow_negative_numbers = true)]
    pub items: Vec<String>,
    /// Read items from this file; - is standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "items")]
    pub file: Option<PathBuf>,
    /// Format of the file; for ITEM arguments json (each must be JSON) or text (each is text)
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<InputFormat>,
    /// Separator of the columns of a CSV file: a character, or tab [default: ,]
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    delimiter: Option<u8>,
}

impl Flags {
    /// Returns how the items are read.
    pub fn reading(&self) -> Reading {
        Reading { format: self.format, delimiter: self.delimiter, is_fixed: false }
    }
}
