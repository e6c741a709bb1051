//! The table made of records.

use serde_json::json;

use crate::record::Record;
use crate::table::{grouped, median, parse, ratio_cell, ratios, render, replace_in};

fn record(campaign: &str, service: &str, pair: u32, per_second: f64) -> String {
    json!({
        "campaign": campaign, "date": format!("{campaign}T00:00:0{pair}Z"), "commit": "abc",
        "machine": {"cpu": "Abacus", "cores": 2, "memory_gib": 4, "kernel": "6.1", "filesystem": "ext4"},
        "service": service, "version": format!("{service} 1"), "pair": pair, "nodes": 3, "workload": "put",
        "clients": 64, "keys": 10, "value_bytes": 256, "connections": 64, "warmup_s": 1.0, "window_s": 5.0,
        "operations": 5, "per_second": per_second,
        "latency_us": {"p50": 1500, "p90": 2000, "p99": 9000, "p999": 9500, "max": 10_000},
        "server_cpu_us": 50.0, "generator_cpu_us": 20.0, "peak_rss_mib": [40, 50, 45],
        "noise": {"steal": 1.0, "bystander": 0.5, "foreign": 3.0},
    })
    .to_string()
}

fn records() -> Vec<Record> {
    let lines = [
        record("2026-01-01", "Ours", 1, 1.0),
        record("2026-01-02", "Ours", 1, 20_000.0),
        record("2026-01-02", "Theirs", 1, 10_000.0),
        record("2026-01-02", "Ours", 2, 30_000.0),
        record("2026-01-02", "Theirs", 2, 10_000.0),
        record("2026-01-02", "Ours", 3, 4_000.0),
        record("2026-01-02", "Theirs", 3, 1_000.0),
    ];
    parse(&lines.join("\n")).unwrap()
}

#[test]
fn a_row_holds_medians_and_the_ratio_of_neighbours() {
    let text = render(&records());
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(
        rows,
        [
            "| work | Ours | Theirs | Ours ÷ Theirs |",
            "|---|---|---|---|",
            "| put, C=64 | 20 000/s, 1.50 ms / 9.00 ms, 50 + 20 µs | 10 000/s, 1.50 ms / 9.00 ms, 50 + 20 µs | **3.00** (2.00 … 4.00), CPU 1.00 |",
        ]
    );
    assert!(text.contains("commit abc; Ours 1, Theirs 1"), "{text}");
    assert!(text.contains("Peak resident memory of a node: Ours 50 MiB; Theirs 50 MiB"), "{text}");
}

#[test]
fn errors_stand_in_the_cell() {
    let mut records = records();
    records[1].errors.insert("PUT /v1/kv: 503 no_leader".to_owned(), 7);
    assert!(render(&records).contains("µs, **7 errors** |"));
}

#[test]
fn a_pair_with_one_side_has_no_ratio() {
    let mut records = records();
    records.retain(|record| record.pair != 2 || record.service == "Ours");
    let kept: Vec<&Record> = records.iter().skip(1).collect();
    assert_eq!(ratios(&kept, "Ours", "Theirs", |record| Some(record.per_second)), [2.0, 4.0]);
    assert_eq!(ratio_cell("", &[], &[]), "–");
}

#[test]
fn rows_of_one_node_follow_those_of_three_and_lack_those_who_do_not_do_them() {
    let mut records = records();
    let mut alone = records[1].clone();
    (alone.nodes, alone.clients, alone.per_second) = (1, 64, 50_000.0);
    records.push(alone);
    let text = render(&records);
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| put")).collect();
    assert!(rows[0].starts_with("| put, C=64 | 20 000/s"), "{text}");
    assert_eq!(rows[1], "| put, C=64, one node | 50 000/s, 1.50 ms / 9.00 ms, 50 + 20 µs | – | – |");
}

#[test]
fn at_a_rate_lateness_is_compared() {
    let mut records = records();
    for record in &mut records {
        (record.rate, record.per_second) = (Some(20_000.0), 20_000.0);
        if record.service == "Theirs" {
            record.latency_us.p99 = 27_000;
        }
    }
    let text = render(&records);
    let row = text.lines().find(|line| line.starts_with("| put")).unwrap();
    assert_eq!(
        row,
        "| put, C=64, 20 000/s asked for | 20 000/s, 1.50 ms / 9.00 ms, 50 + 20 µs, servers 1.00 cores \
         | 20 000/s, 1.50 ms / 27.00 ms, 50 + 20 µs, servers 1.00 cores | p99 **3.00** (3.00 … 3.00), CPU 1.00 |"
    );
}

#[test]
fn records_survive_their_json() {
    for record in records() {
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::to_string(&parse(&line).unwrap()[0]).unwrap(), line);
    }
    assert!(parse("{\"campaign\":1}").unwrap_err().to_string().contains("line 1"));
    assert_eq!(render(&[]), "No records.\n");
}

#[test]
fn a_report_replaces_the_one_before() {
    let document = "# Speed\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nMethod.\n";
    let once = replace_in(document, "new\n").unwrap();
    assert_eq!(once, "# Speed\n<!-- bench:begin -->\nnew\n<!-- bench:end -->\nMethod.\n");
    assert_eq!(replace_in(&once, "new\n").unwrap(), once);
    assert!(replace_in("# Speed\n", "new\n").is_err());
    assert!(replace_in("<!-- bench:end --><!-- bench:begin -->", "new\n").is_err());
}

#[test]
fn numbers_for_people() {
    assert_eq!(median(&[3.0, 1.0, 2.0]).to_string(), "2");
    assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]).to_string(), "2.5");
    assert_eq!([0.0, 999.6, 12_345.0, 1_234_567.0].map(grouped), ["0", "1 000", "12 345", "1 234 567"]);
}
