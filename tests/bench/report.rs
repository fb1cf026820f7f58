//! The report: rows, printed as a table and written as JSON.

use std::fmt::Write;

use serde::{Serialize, Serializer};

use crate::drain::Sample;

/// The median of some figures, with the least and the greatest.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub greatest: f64,
}

impl Spread {
    /// Returns the spread of some figures. `None` if there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (least, greatest) = (*figures.first()?, *figures.last()?);
        Some(Self { median: figures[figures.len() / 2], least, greatest })
    }

    /// Returns the median, with the least and the greatest if they differ.
    pub fn shown(self) -> String {
        let [median, least, greatest] = [self.median, self.least, self.greatest].map(short);
        if median == least && median == greatest { median } else { format!("{median} ({least} to {greatest})") }
    }
}

/// The goal for a row.
#[derive(Debug, Clone, Copy)]
pub enum Aim {
    /// For the ratio.
    RatioAtLeast(f64),
    /// For the ratio.
    RatioAtMost(f64),
    /// For the measured figure.
    AtLeast(f64),
    /// For the measured figure.
    AtMost(f64),
    /// For the processor time of nodes per item, in microseconds.
    NodeAtMost(f64),
}

impl Serialize for Aim {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

impl Aim {
    fn shown(self) -> String {
        match self {
            Self::RatioAtLeast(bound) => format!("ratio ≥ {bound}"),
            Self::RatioAtMost(bound) => format!("ratio ≤ {bound}"),
            Self::AtLeast(bound) => format!("≥ {bound}"),
            Self::AtMost(bound) => format!("≤ {bound}"),
            Self::NodeAtMost(bound) => format!("node ≤ {bound} µs"),
        }
    }

    /// Returns `true` if the median meets the goal. `None` if there is no figure.
    fn is_met(self, row: &Row) -> Option<bool> {
        let median = |spread: Option<Spread>| spread.map(|spread| spread.median);
        match self {
            Self::RatioAtLeast(bound) => median(row.ratio).map(|ratio| ratio >= bound),
            Self::RatioAtMost(bound) => median(row.ratio).map(|ratio| ratio <= bound),
            Self::AtLeast(bound) => median(row.measured).map(|measured| measured >= bound),
            Self::AtMost(bound) => median(row.measured).map(|measured| measured <= bound),
            Self::NodeAtMost(bound) => median(row.node_micros).map(|micros| micros <= bound),
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    pub benchmark: &'static str,
    pub name: String,
    /// The figure, and its unit.
    pub measured: Option<Spread>,
    pub unit: &'static str,
    /// The ratio to another row in the same round, and that row.
    pub ratio: Option<Spread>,
    pub ratio_to: Option<String>,
    /// Processor time per item in microseconds: of all servers, and of all nodes or the relay.
    pub server_micros: Option<Spread>,
    pub node_micros: Option<Spread>,
    /// The most memory of one server and one worker, in MiB. The worker is a node or the relay.
    pub server_mebibytes: Option<Spread>,
    pub node_mebibytes: Option<Spread>,
    /// Percentage of the machine that other programs have used.
    pub foreign_percent: Option<Spread>,
    pub aim: Option<Aim>,
    pub is_met: Option<bool>,
    /// The reason why there are no figures.
    pub missing: Option<String>,
}

impl Row {
    /// Creates a row with one figure.
    pub fn new(benchmark: &'static str, name: impl Into<String>, measured: Option<Spread>, unit: &'static str) -> Self {
        Self { benchmark, name: name.into(), measured, unit, ..Self::default() }
    }

    /// Adds a ratio to another row.
    #[must_use]
    pub fn with_ratio(self, ratio: Option<Spread>, to: impl Into<String>) -> Self {
        Self { ratio, ratio_to: Some(to.into()), ..self }
    }

    /// Adds a goal.
    #[must_use]
    pub fn with_aim(mut self, aim: Option<Aim>) -> Self {
        self.aim = aim;
        self.is_met = aim.and_then(|aim| aim.is_met(&self));
        self
    }

    /// Adds the usage of these runs.
    #[must_use]
    pub fn with_use_of(self, samples: &[Sample]) -> Self {
        let spread = |figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
        Self {
            server_micros: spread(|sample| sample.server.seconds * 1e6 / sample.items),
            node_micros: spread(|sample| sample.worker.seconds * 1e6 / sample.items),
            server_mebibytes: spread(|sample| sample.server.peak),
            node_mebibytes: spread(|sample| sample.worker.peak),
            foreign_percent: spread(|sample| sample.foreign * 100.0),
            ..self
        }
    }

    /// Removes the figures, and adds the reason.
    #[must_use]
    pub fn missing(self, why: impl Into<String>) -> Self {
        Self { missing: Some(why.into()), ..self }
    }

    fn cells(&self) -> [String; 6] {
        let pair = |server: Option<Spread>, node: Option<Spread>| match (server, node) {
            (None, None) => String::new(),
            (server, node) => {
                [server, node].map(|spread| spread.map_or("-".to_owned(), |spread| short(spread.median))).join(" / ")
            }
        };
        let measured = match (&self.missing, self.measured) {
            (Some(why), _) => format!("not available: {}", gist(why)),
            (None, Some(measured)) => format!("{} {}", measured.shown(), self.unit),
            (None, None) => String::new(),
        };
        let aim = self.aim.map_or(String::new(), |aim| match self.is_met {
            Some(true) => format!("{}: met", aim.shown()),
            Some(false) => format!("{}: MISSED", aim.shown()),
            None => aim.shown(),
        });
        [
            format!("  {}", self.name),
            measured,
            self.ratio.map_or(String::new(), Spread::shown),
            pair(self.server_micros, self.node_micros),
            pair(self.server_mebibytes, self.node_mebibytes),
            aim,
        ]
    }
}

/// All figures.
#[derive(Serialize)]
pub struct Report {
    pub rounds: usize,
    /// `true` if the benchmarks were only tried out.
    pub quick: bool,
    pub cores: usize,
    /// Processes that were ready to run, before and after. Averaged over a minute.
    pub load_before: f64,
    pub load_after: f64,
    pub rows: Vec<Row>,
}

impl Report {
    /// Returns the table.
    pub fn table(&self) -> String {
        const HEAD: [&str; 6] = ["what", "measured", "ratio", "µs/item: server / node", "MiB: server / node", "aim"];
        let head = HEAD.map(str::to_owned);
        let lines: Vec<[String; 6]> = self.rows.iter().map(Row::cells).collect();
        let mut widths = [0; 6];
        for line in lines.iter().chain([&head]) {
            for (width, cell) in widths.iter_mut().zip(line) {
                // A reason need not fit its column: the columns after it are empty.
                if !cell.starts_with("not available") {
                    *width = (*width).max(cell.chars().count());
                }
            }
        }
        let shown = |line: &[String; 6]| {
            let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let mut table = shown(&head) + "\n";
        let mut benchmark = "";
        for (row, line) in self.rows.iter().zip(&lines) {
            if row.benchmark != benchmark {
                benchmark = row.benchmark;
                let _ = writeln!(table, "{benchmark}");
            }
            table += &(shown(line) + "\n");
        }
        let foreign = self.rows.iter().filter_map(|row| row.foreign_percent).map(|percent| percent.median);
        let foreign = Spread::of(foreign).map_or(String::new(), |percent| {
            format!("; other programs took {} percent of the machine during runs", percent.shown())
        });
        let Self { rounds, cores, load_before, load_after, .. } = self;
        table
            + &format!("{rounds} rounds on {cores} cores, load {load_before} before and {load_after} after{foreign}\n")
    }
}

/// Returns a table as pages have it.
pub fn markdown(head: &[&str], lines: &[Vec<String>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut table = line(head.to_vec()) + &line(vec!["---"; head.len()]);
    for cells in lines {
        let missing = std::iter::repeat_n("", head.len().saturating_sub(cells.len()));
        table += &line(cells.iter().map(String::as_str).chain(missing).collect());
    }
    table
}

/// Returns the distinctive part of an error, in a table's width.
fn gist(error: &str) -> String {
    const WIDTH: usize = 80;
    let tail = error.rsplit("stage `stage0`: ").next().unwrap();
    let cut = tail.chars().count() > WIDTH;
    tail.chars().take(WIDTH).chain(cut.then_some('…')).collect()
}

/// Returns a figure with its significant digits.
fn short(figure: f64) -> String {
    match figure.abs() {
        1e6.. => format!("{:.2} M", figure / 1e6),
        1e4.. => format!("{:.1} k", figure / 1e3),
        100.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}
