//! The record of a message: the steps that its items have gone through.
//!
//! A message has one parent, so all of its items have gone through the same steps. What differs between them is a column of a
//! step, with one number for each item. Outputs pick the numbers of the item that they descend from. [`mod@wire`] is the form of
//! the record in the header [`STEPS`](super::header::STEPS).

mod wire;

/// The most bytes of the header.
pub(crate) const STEPS_MAX: usize = 4 << 10;

/// The record of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    /// When the message was fed that its items descend from, in milliseconds since the Unix epoch. `None` if that is unknown.
    pub(crate) fed: Option<u64>,
    /// On requeued messages: when the items were first queued for their stage.
    pub(crate) queued: Option<u64>,
    /// The number of steps that were left out, oldest first.
    pub(crate) dropped: u64,
    /// The steps, oldest first.
    pub(crate) rows: Vec<Row>,
}

/// One step of the items of a message: a stage that has run them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The stage.
    pub(crate) stage: String,
    /// The node.
    pub(crate) node: String,
    /// The version of the chain.
    pub(crate) version: String,
    /// The number of the revision.
    pub(crate) revision: u64,
    /// The number of the attempt.
    pub(crate) attempt: u64,
    /// When the items were queued, by the server's clock. `None` for an inline stage.
    pub(crate) queued: Option<u64>,
    /// How far the node's clock was ahead of the server's, and how wrong that may be, in milliseconds. The times are corrected by it.
    /// `None` if that is unknown.
    pub(crate) skew: Option<(i64, u64)>,
    /// The kind of failure. `None` if the attempt succeeded.
    pub(crate) failure: Option<String>,
    /// The last lines that a failed attempt has logged.
    pub(crate) lines: Vec<String>,
    /// `true` if the columns tell of the whole message only: its first start, and means of the other numbers.
    pub(crate) is_coarse: bool,
    /// When each item began, in milliseconds since the Unix epoch.
    pub(crate) started: Column,
    /// How long each item ran, in microseconds.
    pub(crate) ran: Column,
    /// The bytes of each item.
    pub(crate) received: Option<Column>,
    /// The bytes of its outputs.
    pub(crate) sent: Option<Column>,
    /// How long its calls took, in microseconds.
    pub(crate) calls: Option<Column>,
    /// The exit status of its program.
    pub(crate) exit: Option<Column>,
}

/// A number for each item of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Column {
    /// All have the same.
    Same(i64),
    /// Each has its own.
    Each(Vec<i64>),
}

impl Column {
    /// Returns the number of an item. `None` if the column has too few.
    pub(crate) fn get(&self, position: usize) -> Option<i64> {
        match self {
            Self::Same(number) => Some(*number),
            Self::Each(numbers) => numbers.get(position).copied(),
        }
    }

    /// Returns the numbers of the items at these positions.
    fn pick(&self, positions: &[usize]) -> Self {
        match self {
            Self::Same(number) => Self::Same(*number),
            Self::Each(_) => positions.iter().map(|position| self.get(*position).unwrap_or_default()).collect(),
        }
    }

    fn is_each(&self) -> bool {
        matches!(self, Self::Each(_))
    }

    fn least(&mut self) {
        if let Self::Each(numbers) = self {
            *self = Self::Same(numbers.iter().copied().min().unwrap_or_default());
        }
    }

    fn mean(&mut self) {
        if let Self::Each(numbers) = self {
            let sum: i128 = numbers.iter().map(|number| i128::from(*number)).sum();
            let mean = sum / i128::try_from(numbers.len().max(1)).unwrap_or(1);
            *self = Self::Same(i64::try_from(mean).unwrap_or_default());
        }
    }
}

impl FromIterator<i64> for Column {
    fn from_iter<I: IntoIterator<Item = i64>>(numbers: I) -> Self {
        let numbers: Vec<i64> = numbers.into_iter().collect();
        match numbers.split_first() {
            Some((first, others)) if others.iter().all(|other| other == first) => Self::Same(*first),
            None => Self::Same(0),
            Some(_) => Self::Each(numbers),
        }
    }
}

impl Row {
    /// Returns the row for the items at these positions.
    fn pick(&self, positions: &[usize]) -> Self {
        let pick = |column: &Option<Column>| column.as_ref().map(|column| column.pick(positions));
        Self {
            started: self.started.pick(positions),
            ran: self.ran.pick(positions),
            received: pick(&self.received),
            sent: pick(&self.sent),
            calls: pick(&self.calls),
            exit: pick(&self.exit),
            ..self.clone()
        }
    }

    fn columns(&self) -> impl Iterator<Item = &Column> {
        let more = [&self.received, &self.sent, &self.calls, &self.exit];
        [&self.started, &self.ran].into_iter().chain(more.into_iter().flatten())
    }

    /// Drops what tells the items of the message apart. Returns `false` if nothing does.
    fn coarsen(&mut self) -> bool {
        if !self.columns().any(Column::is_each) {
            return false;
        }
        self.is_coarse = true;
        self.started.least();
        self.ran.mean();
        for column in [&mut self.received, &mut self.sent, &mut self.calls].into_iter().flatten() {
            column.mean();
        }
        self.exit.take_if(|exit| exit.is_each());
        true
    }
}

impl Steps {
    /// Returns the record of the items at these positions. A position may occur more than once.
    pub(crate) fn pick(&self, positions: &[usize]) -> Self {
        Self { rows: self.rows.iter().map(|row| row.pick(positions)).collect(), ..*self }
    }

    /// Writes the value of the header. What leaves no room for the rest is dropped, the oldest first: what tells items apart, then
    /// lines of the log, then steps.
    pub(crate) fn to_header(&self) -> String {
        let text = wire::write(self);
        if text.len() <= STEPS_MAX {
            return text;
        }
        let mut steps = self.clone();
        loop {
            steps.shrink();
            let text = wire::write(&steps);
            if text.len() <= STEPS_MAX || steps.rows.is_empty() {
                return text;
            }
        }
    }

    /// Drops the oldest detail.
    fn shrink(&mut self) {
        if self.rows.iter_mut().any(Row::coarsen) {
            return;
        }
        if let Some(row) = self.rows.iter_mut().find(|row| !row.lines.is_empty()) {
            row.lines.clear();
            return;
        }
        if !self.rows.is_empty() {
            self.rows.remove(0);
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// Reads the value of the header of a message with this many items. `None` if it is none.
    pub(crate) fn from_header(header: &str, items: usize) -> Option<Self> {
        wire::read(header, items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn row(stage: &str, started: Column) -> Row {
        Row {
            stage: stage.to_owned(),
            node: "a".to_owned(),
            version: "1.0".to_owned(),
            revision: 3,
            attempt: 1,
            queued: Some(1_000),
            skew: Some((-4, 1)),
            failure: None,
            lines: Vec::new(),
            is_coarse: false,
            started,
            ran: Column::Same(7),
            received: None,
            sent: Some((0..4).collect()),
            calls: None,
            exit: Some(Column::Same(0)),
        }
    }

    #[test]
    fn outputs_have_the_numbers_of_the_items_that_they_descend_from() {
        let steps =
            Steps { fed: Some(900), rows: vec![row("s", [5, 6, 7, 8].into_iter().collect())], ..Steps::default() };
        let outputs = steps.pick(&[3, 1, 1]);
        assert_eq!(outputs.rows[0].started, Column::Each(vec![8, 6, 6]));
        assert_eq!(outputs.rows[0].sent, Some(Column::Each(vec![3, 1, 1])));
        assert_eq!(outputs.pick(&[1, 2]).rows[0].started, Column::Same(6));
        assert_eq!([6, 6].into_iter().collect::<Column>(), Column::Same(6));
    }

    #[test]
    fn a_header_is_bounded_and_loses_the_oldest_detail_first() {
        let long = |stage: &str| Row {
            started: (0..900).map(|number| number * 7 % 199).collect(),
            sent: None,
            lines: vec!["said".repeat(50)],
            ..row(stage, Column::Same(0))
        };
        let steps = Steps { fed: Some(7), rows: vec![long("first"), long("second")], ..Steps::default() };
        let header = steps.to_header();
        assert!(header.len() <= STEPS_MAX, "{}", header.len());
        let read = Steps::from_header(&header, 900).expect("a record");
        assert!(read.rows[0].is_coarse && !read.rows[1].is_coarse, "{read:?}");
        assert_eq!((read.rows[0].started.get(5), read.dropped), (Some(0), 0));
        assert_eq!(read.rows[1].started.get(30), Some(11));
        let many =
            Steps { rows: (0..200).map(|number| row(&format!("{number:063}"), Column::Same(5))).collect(), ..steps };
        let header = many.to_header();
        let read = Steps::from_header(&header, 4).expect("a record");
        assert!(header.len() <= STEPS_MAX);
        assert!(read.dropped > 100 && read.dropped + read.rows.len() as u64 == 200);
        assert_eq!(read.rows.last().map(|row| row.stage.as_str()), Some(many.rows[199].stage.as_str()));
    }
}
