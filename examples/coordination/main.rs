//! A plant: programs that register under one prefix, pass work on by topics, and follow each other's progress.
//!
//! One program, two roles: the console (default), and `work`, one program of the plant. README.md tells the story.

mod console;
mod crew;
mod work;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use coracle_client::api::{SubscriptionConfig, TopicConfig};
use coracle_examples::{Cluster, flag};

use crate::console::Console;
use crate::crew::Crew;

/// What all that belongs to the plant begins with.
const PLANT: &str = "plant.";
const ORDERS: &str = "plant.orders";
const PARTS: &str = "plant.parts";
/// A table: one good an order, whoever made it and however often.
const GOODS: &str = "plant.goods";
/// A table: the current settings.
const SETTINGS: &str = "plant.settings";
/// A table: by which setting each program works.
const NOTES: &str = "plant.notes";
/// Keys of the programs that are there.
const PROGRAMS: &str = "plant.programs/";
/// Short, so that the end of a program does not make the example long.
const TTL: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> ExitCode {
    let role = std::env::args().nth(1);
    let result = if role.as_deref() == Some("work") { work::run().await } else { drive().await };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAIL: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn drive() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("coordination-").tempdir()?.keep();
    let orders = if flag("--short") { 20 } else { 200 };
    let result = play(&folder, orders).await;
    match &result {
        Ok(()) => std::fs::remove_dir_all(&folder)?,
        Err(_) => eprintln!("kept for inspection: {}", folder.display()),
    }
    result
}

async fn play(folder: &Path, orders: usize) -> Result<()> {
    let started = Instant::now();
    let mut cluster = Cluster::start(folder, &[]).await?;
    println!("cluster   {}", cluster.urls());
    let client = cluster.client().await?;
    for (topic, name) in [(ORDERS, "fetch"), (PARTS, "press")] {
        let config = SubscriptionConfig { from: Some("first".to_owned()), ..SubscriptionConfig::default() };
        client.topic(topic).subscription(name).configure(&config).await?;
    }
    for table in [GOODS, SETTINGS, NOTES] {
        client
            .topic(table)
            .configure(&TopicConfig { max_per_key: Some(1), ..TopicConfig::default() })
            .await?;
    }
    client.topic(SETTINGS).publish("200ms").key("pace").await?;
    let mut console = Console::open(&client);
    console.synced().await?;

    let mut crew = Crew::new(&cluster.urls());
    for name in ["fetch-1", "fetch-2", "press-1", "press-2"] {
        crew.start(name)?;
    }
    console.until("all have come", |seen| seen.present.len() == 4).await?;
    println!("plant     {}", console.seen.present.iter().cloned().collect::<Vec<_>>().join(", "));
    console.order(orders / 2).await?;

    console
        .until("fetch-1 is in the middle of an order", |seen| {
            seen.percent("fetch-1").is_some_and(|p| p <= 40)
        })
        .await?;
    let in_hand = console.seen.note("fetch-1").context("no order is said")?;
    crew.kill("fetch-1")?;
    let killed = Instant::now();
    println!("killed    fetch-1, with {in_hand} in hand");
    console.until("its end is told", |seen| seen.gone.contains("fetch-1")).await?;
    println!(
        "gone      fetch-1, as the console hears {:.1?} later; its order went back: {}",
        killed.elapsed(),
        console.seen.returned
    );
    crew.start("fetch-3")?;

    client.topic(SETTINGS).publish("5ms").key("pace").await?;
    console.order(orders - orders / 2).await?;
    let leader = cluster.leader().await?;
    leader.kill()?;
    println!("killed    the leader, {}", leader.name);
    console.until("all goods are there", |seen| seen.goods.len() == orders).await?;
    leader.start()?;
    leader.ready(Duration::from_secs(30)).await?;
    let living = ["fetch-2", "fetch-3", "press-1", "press-2"];
    console
        .until("all work by the new setting", |seen| living.iter().all(|name| seen.works_by(name, "5ms")))
        .await?;

    let made_by = console.seen.goods.get(&in_hand).context("the order in hand is not among the goods")?;
    ensure!(!made_by.contains("fetch-1"), "{in_hand} was finished by the dead: {made_by}");
    println!("goods     {orders} of {orders}; {in_hand} was made by {made_by}");
    console.check(orders, &living).await?;
    crew.stop();
    println!("PASS      {:.1?}", started.elapsed());
    Ok(())
}
