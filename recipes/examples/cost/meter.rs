//! What operations cost: steps and processor time, and both as a row of a table.

use coracle_store::steps::{Steps, taken};
use rustix::time::{ClockId, clock_gettime};

/// Measures operations at one size.
pub struct Meter {
    most: usize,
    pub figures: Vec<Figure>,
}

/// The cost of one operation at one size.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    pub what: &'static str,
    /// So many were done.
    pub times: usize,
    /// Of all of them together.
    pub steps: Steps,
    /// Of each, in the quickest tenth.
    pub nanos: f64,
    /// It touches more, where there is more: what.
    pub grows: Option<&'static str>,
}

impl Meter {
    pub fn new(most: usize) -> Self {
        Self { most, figures: Vec::new() }
    }

    /// How often an operation will be done that is to be done so often.
    pub fn times(&self, wanted: usize) -> usize {
        wanted.min(self.most)
    }

    /// Do an operation so many times, at most; it is given the number of the time.
    pub fn of(&mut self, what: &'static str, times: usize, mut work: impl FnMut(usize)) -> &mut Figure {
        let times = self.times(times);
        // Some tenths are disturbed by what else the machine does: by its caches if by nothing more.
        let tenth = times.div_ceil(10);
        let (before, mut nanos, mut done) = (taken(), f64::INFINITY, 0);
        while done < times {
            let upto = (done + tenth).min(times);
            let begin = processor_nanos();
            (done..upto).for_each(&mut work);
            nanos = nanos.min((processor_nanos() - begin) / (upto - done) as f64);
            done = upto;
        }
        let Steps { rows, bytes } = taken();
        let steps = Steps { rows: rows - before.rows, bytes: bytes - before.bytes };
        self.figures.push(Figure { what, times, steps, nanos, grows: None });
        self.figures.last_mut().expect("just pushed")
    }
}

impl Figure {
    /// Each time did so many.
    pub fn per(&mut self, many: usize) -> &mut Self {
        self.nanos /= many as f64;
        self.times *= many;
        self
    }

    /// Its cost grows, with what it touches.
    pub fn grows(&mut self, with: &'static str) {
        self.grows = Some(with);
    }
}

/// One operation, at all sizes that were tried.
pub fn row(across: &[Figure], columns: usize) -> String {
    let first = across[0];
    let cells: Vec<String> = (0..columns)
        .map(|column| across.get(column).map_or_else(String::new, |figure| micros(figure.nanos)))
        .collect();
    let steps = |figure: &Figure| figure.steps.rows as f64 / figure.times as f64;
    let (least, most) = across
        .iter()
        .map(steps)
        .fold((f64::INFINITY, 0.0_f64), |(least, most), steps| (least.min(steps), most.max(steps)));
    let steps = if rounded(least) == rounded(most) {
        rounded(least)
    } else {
        format!("{} … {}", rounded(least), rounded(most))
    };
    let with = first.grows.map_or_else(String::new, |with| format!(" ({with})"));
    format!("| {}{with} | {} | {steps} |", first.what, cells.join(" | "))
}

fn micros(nanos: f64) -> String {
    match nanos / 1_000.0 {
        small if small < 9.95 => format!("{small:.1}"),
        micros => format!("{micros:.0}"),
    }
}

/// One digit behind the point, if it says something.
fn rounded(steps: f64) -> String {
    format!("{steps:.1}").trim_end_matches(".0").to_owned()
}

/// Time this thread has had a processor, so that a busy machine does not blur the figures.
fn processor_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
