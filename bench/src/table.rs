//! Records as Markdown, for people and for docs/PERFORMANCE.md.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Context, Result};

use crate::processes::ToF64;
use crate::record::Record;
use crate::workload::Workload;

/// One line of the table: work that is the same on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    workload: Workload,
    nodes: Reverse<usize>,
    clients: usize,
    value_bytes: usize,
    sessions: Option<u32>,
    /// In thousandths, so that it can be compared.
    rate: Option<u64>,
}

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// The document with `report` in the place of what stood between its two marks.
pub fn replace_in(document: &str, report: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).with_context(|| format!("no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no line {END} after {BEGIN}"))?;
    Ok(format!("{before}{BEGIN}\n{report}{END}{after}"))
}

pub fn parse(lines: &str) -> Result<Vec<Record>> {
    let numbered = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    numbered
        .map(|(number, line)| serde_json::from_str(line).with_context(|| format!("line {}", number + 1)))
        .collect()
}

/// The whole report. Of each row only the newest campaign counts.
pub fn render(records: &[Record]) -> String {
    let mut rows: BTreeMap<Row, Vec<&Record>> = BTreeMap::new();
    for record in records {
        rows.entry(Row::of(record)).or_default().push(record);
    }
    for row in rows.values_mut() {
        let newest = row.iter().map(|record| record.campaign.clone()).max().unwrap_or_default();
        row.retain(|record| record.campaign == newest);
    }
    let used: Vec<&Record> = rows.values().flatten().copied().collect();
    let Some(first) = used.first() else { return "No records.\n".to_owned() };
    let services = services(&used);

    let mut text = heading(&used, first);
    text.push_str("| work |");
    for service in &services {
        write!(text, " {service} |").expect("a string takes any text");
    }
    let (ours, others) = services.split_first().expect("a record has a service");
    for theirs in others {
        write!(text, " {ours} ÷ {theirs} |").expect("a string takes any text");
    }
    let columns = 2 * services.len();
    writeln!(text, "\n|{}", "---|".repeat(columns)).expect("a string takes any text");
    for (row, records) in &rows {
        write!(text, "| {} |", row.title(&rows)).expect("a string takes any text");
        for service in &services {
            let side: Vec<&Record> =
                records.iter().copied().filter(|record| record.service == *service).collect();
            write!(text, " {} |", cell(&side)).expect("a string takes any text");
        }
        for theirs in others {
            // At a rate both do the same number; what differs is how late.
            let (label, main) = match row.rate {
                Some(_) => {
                    ("p99 ", ratios(records, theirs, ours, |record| Some(record.latency_us.p99.to_f64())))
                }
                None => ("", ratios(records, ours, theirs, |record| Some(record.per_second))),
            };
            let cpu = ratios(records, theirs, ours, |record| record.server_cpu_us);
            write!(text, " {} |", ratio_cell(label, &main, &cpu)).expect("a string takes any text");
        }
        text.push('\n');
    }
    text
}

/// The services in the order in which they first ran.
fn services<'a>(records: &[&'a Record]) -> Vec<&'a str> {
    let mut services = Vec::new();
    let mut in_time: Vec<&&Record> = records.iter().collect();
    in_time.sort_by(|a, b| a.date.cmp(&b.date));
    for record in in_time {
        if !services.contains(&record.service.as_str()) {
            services.push(&record.service);
        }
    }
    services
}

fn heading(records: &[&Record], first: &Record) -> String {
    let set = |of: fn(&Record) -> String| {
        records
            .iter()
            .map(|record| of(record))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
            .join(", ")
    };
    let machine = &first.machine;
    let noise = |of: fn(&Record) -> f64| {
        let values: Vec<f64> = records.iter().map(|record| of(record)).collect();
        format!("{:.0} % ({:.0} … {:.0})", median(&values), smallest(&values), largest(&values))
    };
    format!(
        "Measured {dates} on {cpu}, {cores} cores shared with the load generator, {memory} GiB, Linux {kernel}, {filesystem}; commit {commits}; {versions}. \
         Closed loop unless a rate is given, {windows} s each after {warmups} s of warm-up, {pairs} neighbouring pairs. \
         Three nodes unless a row says otherwise. \
         A cell: operations per second, p50 / p99 latency, CPU per operation of all servers + of the load generator; medians; – is what a service does not do. \
         The ratio: median of the pairs' ratios of operations per second, at a given rate of p99 latency (theirs ÷ ours), their smallest and largest; then the ratio of server CPU per operation. \
         Peak resident memory of a node: {memory_used}. \
         Noise, as a share of the machine: taken by the hypervisor {steal}, by other programs {foreign}.\n\n",
        dates = set(|record| record.date[..10.min(record.date.len())].to_owned()),
        cpu = machine.cpu,
        cores = machine.cores,
        memory = machine.memory_gib,
        kernel = machine.kernel,
        filesystem = if machine.filesystem.is_empty() { "unknown disk" } else { &machine.filesystem },
        commits = set(|record| record.commit.clone()),
        versions = set(|record| record.version.clone()),
        windows = set(|record| format!("{:.0}", record.window_s)),
        warmups = set(|record| record.warmup_s.to_string()),
        pairs = records.iter().map(|record| record.pair).max().unwrap_or(0),
        memory_used = memory_used(records),
        steal = noise(|record| record.noise.steal),
        foreign = noise(|record| record.noise.foreign),
    )
}

/// By service, the largest of its nodes.
fn memory_used(records: &[&Record]) -> String {
    let mut largest: BTreeMap<&str, u64> = BTreeMap::new();
    for record in records {
        let peak = record.peak_rss_mib.iter().copied().max().unwrap_or_default();
        let so_far = largest.entry(&record.service).or_default();
        *so_far = peak.max(*so_far);
    }
    largest.iter().map(|(service, mib)| format!("{service} {mib} MiB")).collect::<Vec<_>>().join("; ")
}

fn cell(side: &[&Record]) -> String {
    if side.is_empty() {
        return "–".to_owned();
    }
    let middle = |of: &dyn Fn(&Record) -> f64| {
        let values: Vec<f64> = side.iter().map(|record| of(record)).collect();
        median(&values)
    };
    let mut text = format!(
        "{}/s, {} / {}",
        grouped(middle(&|record| record.per_second)),
        millis(middle(&|record| record.latency_us.p50.to_f64())),
        millis(middle(&|record| record.latency_us.p99.to_f64())),
    );
    if side.iter().all(|record| record.server_cpu_us.is_some()) {
        let servers = middle(&|record| record.server_cpu_us.unwrap_or_default());
        let generator = middle(&|record| record.generator_cpu_us);
        write!(text, ", {servers:.0} + {generator:.0} µs").expect("a string takes any text");
        if side.iter().any(|record| record.rate.is_some()) {
            let cores = servers * middle(&|record| record.per_second) / 1e6;
            write!(text, ", servers {cores:.2} cores").expect("a string takes any text");
        }
    }
    let errors: u64 = side.iter().map(|record| record.error_count()).sum();
    if errors > 0 {
        write!(text, ", **{errors} errors**").expect("a string takes any text");
    }
    text
}

/// One ratio for each pair that has both sides.
pub fn ratios(
    records: &[&Record],
    ours: &str,
    theirs: &str,
    of: impl Fn(&Record) -> Option<f64>,
) -> Vec<f64> {
    let find = |service: &str, pair: u32| {
        records
            .iter()
            .find(|record| record.service == service && record.pair == pair)
            .and_then(|record| of(record))
    };
    let pairs: BTreeSet<u32> = records.iter().map(|record| record.pair).collect();
    let ratio = |pair| Some(find(ours, pair)? / find(theirs, pair)?);
    pairs.into_iter().filter_map(ratio).filter(|ratio| ratio.is_finite()).collect()
}

pub fn ratio_cell(label: &str, main: &[f64], cpu: &[f64]) -> String {
    if main.is_empty() {
        return "–".to_owned();
    }
    let mut text = format!("{label}**{:.2}** ({:.2} … {:.2})", median(main), smallest(main), largest(main));
    if !cpu.is_empty() {
        write!(text, ", CPU {:.2}", median(cpu)).expect("a string takes any text");
    }
    text
}

impl Row {
    fn of(record: &Record) -> Self {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // Checked to be positive when it was asked for.
        let rate = record.rate.map(|rate| (rate * 1000.0) as u64);
        Self {
            workload: record.workload,
            nodes: Reverse(record.nodes),
            clients: record.clients,
            value_bytes: record.value_bytes,
            sessions: record.sessions,
            rate,
        }
    }

    /// Says of value sizes only what differs between rows, and of nodes only if they are not three.
    fn title(&self, rows: &BTreeMap<Self, Vec<&Record>>) -> String {
        let mut title = format!("{}, C={}", self.workload.title(), self.clients);
        if let Some(sessions) = self.sessions {
            write!(title, ", {} sessions", grouped(sessions.into())).expect("a string takes any text");
        }
        if let Some(rate) = self.rate {
            write!(title, ", {}/s asked for", grouped(rate.to_f64() / 1000.0))
                .expect("a string takes any text");
        }
        if rows.keys().any(|row| row.value_bytes != self.value_bytes) {
            write!(title, ", {} B", self.value_bytes).expect("a string takes any text");
        }
        match self.nodes.0 {
            3 => {}
            1 => title.push_str(", one node"),
            nodes => write!(title, ", {nodes} nodes").expect("a string takes any text"),
        }
        title
    }
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

fn smallest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn millis(us: f64) -> String {
    format!("{:.2} ms", us / 1000.0)
}

/// A whole number with spaces between thousands.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
