//! Runs in turn, round after round, so that they can be compared.
//!
//! A slow minute of the machine slows all of them down. Every ratio is between neighbors.

use crate::drain::Sample;
use crate::report::{Aim, Row, Spread};

/// The figures of a run, or the reason why it cannot run.
pub type Measured = Result<Sample, String>;

/// The settings of all benchmarks.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub rounds: usize,
    /// `true` to only check that the benchmarks run.
    pub quick: bool,
}

impl Settings {
    /// Returns `full`, or `quick` if the benchmarks are only tried out.
    pub fn either<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// The unit of a rate.
#[derive(Debug, Clone, Copy, Default)]
enum Unit {
    #[default]
    Items,
    Megabytes,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Items => "items/s",
            Self::Megabytes => "MB/s",
        }
    }

    fn rate(self, sample: &Sample) -> f64 {
        match self {
            Self::Items => sample.items / sample.seconds,
            Self::Megabytes => sample.bytes / 1e6 / sample.seconds,
        }
    }
}

/// One of the compared runs.
pub struct Variant<'a> {
    name: String,
    run: Box<dyn Fn() -> Measured + 'a>,
    unit: Unit,
    to: Option<Place>,
    aim: Option<Aim>,
}

impl<'a> Variant<'a> {
    /// Creates a run under this name.
    pub fn new(name: impl Into<String>, run: impl Fn() -> Measured + 'a) -> Self {
        Self { name: name.into(), run: Box::new(run), unit: Unit::default(), to: None, aim: None }
    }

    /// Counts the rate in megabytes.
    #[must_use]
    pub fn in_megabytes(self) -> Self {
        Self { unit: Unit::Megabytes, ..self }
    }

    /// Adds the ratio to the rate of another run.
    #[must_use]
    pub fn to(self, to: Place) -> Self {
        Self { to: Some(to), ..self }
    }

    /// Adds a goal.
    #[must_use]
    pub fn aim(self, aim: Aim) -> Self {
        Self { aim: Some(aim), ..self }
    }
}

/// The index of a run in its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(usize);

/// A ratio between two runs of a series.
struct Comparison {
    name: String,
    of: Place,
    to: Place,
    aim: Option<Aim>,
}

/// A series of compared runs.
pub struct Series<'a> {
    name: &'static str,
    variants: Vec<Variant<'a>>,
    comparisons: Vec<Comparison>,
}

impl<'a> Series<'a> {
    /// Creates an empty series.
    pub fn new(name: &'static str) -> Self {
        Self { name, variants: Vec::new(), comparisons: Vec::new() }
    }

    /// Adds a run.
    pub fn add(&mut self, variant: Variant<'a>) -> Place {
        self.variants.push(variant);
        Place(self.variants.len() - 1)
    }

    /// Adds a ratio between the rates of two runs.
    pub fn compare(&mut self, name: impl Into<String>, of: Place, to: Place, aim: Option<Aim>) {
        self.comparisons.push(Comparison { name: name.into(), of, to, aim });
    }

    /// Runs all of them in turn, for as many rounds as requested.
    pub fn run(self, settings: Settings) -> Vec<Row> {
        let mut measured: Vec<Result<Vec<Sample>, String>> = self.variants.iter().map(|_| Ok(Vec::new())).collect();
        for round in 1..=settings.rounds {
            for (variant, measured) in self.variants.iter().zip(&mut measured) {
                let Ok(samples) = measured else { continue };
                match (variant.run)() {
                    Ok(sample) => {
                        let (rate, unit) = (variant.unit.rate(&sample), variant.unit.name());
                        eprintln!("{}, round {round}: {}: {rate:.0} {unit}", self.name, variant.name);
                        samples.push(sample);
                    }
                    Err(why) => *measured = Err(why),
                }
            }
        }
        let rows = self.variants.iter().zip(&measured).map(|(variant, samples)| self.row(variant, samples, &measured));
        let compared = self.comparisons.iter().map(|comparison| {
            let row = Row::new(self.name, &comparison.name, None, "");
            let ratio = ratios(&measured, comparison.of, comparison.to);
            row.with_ratio(ratio, &self.variants[comparison.to.0].name).with_aim(comparison.aim)
        });
        rows.chain(compared).collect()
    }

    fn row(
        &self,
        variant: &Variant<'_>,
        samples: &Result<Vec<Sample>, String>,
        all: &[Result<Vec<Sample>, String>],
    ) -> Row {
        let row = Row::new(self.name, &variant.name, None, variant.unit.name());
        let samples = match samples {
            Ok(samples) => samples,
            Err(why) => return row.missing(why).with_aim(variant.aim),
        };
        let rates = Spread::of(samples.iter().map(|sample| variant.unit.rate(sample)));
        let row = Row { measured: rates, ..row }.with_use_of(samples);
        let row = match variant.to {
            Some(to) => {
                let place = self.variants.iter().position(|each| std::ptr::eq(each, variant)).map(Place).unwrap();
                row.with_ratio(ratios(all, place, to), &self.variants[to.0].name)
            }
            None => row,
        };
        row.with_aim(variant.aim)
    }
}

/// Returns the ratio of two rates in each round. Both must have the same unit.
fn ratios(measured: &[Result<Vec<Sample>, String>], of: Place, to: Place) -> Option<Spread> {
    let (of, to) = (measured[of.0].as_ref().ok()?, measured[to.0].as_ref().ok()?);
    let rate = |sample: &Sample| sample.items / sample.seconds;
    Spread::of(of.iter().zip(to).map(|(of, to)| rate(of) / rate(to)))
}
