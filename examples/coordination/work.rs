//! One program of the plant: takes what comes before it, works, passes it on. It knows no other program.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use coracle_client::api::{Span, Value};
use coracle_client::{Coracle, MessageUpdate, Session};
use coracle_examples::option;
use futures::StreamExt;
use tokio::sync::watch;

use crate::{GOODS, NOTES, ORDERS, PARTS, PLANT, PROGRAMS, SETTINGS, TTL};

/// Steps of one piece of work; after each the program says how far it is.
const STEPS: u8 = 5;

pub async fn run() -> Result<()> {
    let urls = std::env::var("CORACLE_URL").context("CORACLE_URL is missing")?;
    let name = option("--name")?;
    let (from, to) = match name.split('-').next() {
        Some("fetch") => ((ORDERS, "fetch"), PARTS),
        Some("press") => ((PARTS, "press"), GOODS),
        _ => bail!("a program is a fetch or a press name={name}"),
    };
    let client = Coracle::connect([urls]).await?;
    let session = client.session().ttl(TTL).name(format!("{PLANT}{name}")).open().await?;
    client.kv().put(format!("{PROGRAMS}{name}"), "at work").session(&session).await?;
    let pace = settings(&client, &name).await?;
    tokio::select! {
        done = work(&client, &session, &name, from, to, pace) => done,
        reason = session.lost() => bail!("{name} has lost its session: {reason:?}"),
    }
}

async fn work(
    client: &Coracle,
    session: &Session,
    name: &str,
    (from, subscription): (&str, &str),
    to: &str,
    pace: watch::Receiver<Duration>,
) -> Result<()> {
    // What is in hand lives with the session: if this process dies it goes to another at once.
    let receive = client.topic(from).subscription(subscription).receive().session(session.id());
    let mut incoming = receive.consume();
    loop {
        let delivery = incoming.next().await?;
        let order = delivery.message().key.clone().context("work without a key")?;
        for step in 1..=STEPS {
            session.report(step * (100 / STEPS), Some(order.clone()));
            let pause = *pace.borrow();
            tokio::time::sleep(pause).await;
        }
        // Passed on before it is acknowledged: at least once. The goods are a table, so twice is once.
        let made_by = format!("{} {name}", String::from_utf8_lossy(delivery.bytes()));
        client.topic(to).publish(Value::from(made_by.trim())).key(order).await?;
        incoming.done(delivery);
    }
}

/// Follow the settings: the current one first, then each change; and say by which we work.
async fn settings(client: &Coracle, name: &str) -> Result<watch::Receiver<Duration>> {
    let (tell, pace) = watch::channel(Duration::from_millis(100));
    let mut messages = client.topic(SETTINGS).subscribe().from_first();
    let (client, name) = (client.clone(), name.to_owned());
    let (first, came) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut first = Some(first);
        while let Some(Ok(update)) = messages.next().await {
            let MessageUpdate::Messages { messages, .. } = update else { continue };
            for message in messages.iter().filter(|message| message.key.as_deref() == Some("pace")) {
                let text = message.value.as_str().unwrap_or_default();
                let Ok(span) = text.parse::<Span>() else { continue };
                tell.send_replace(span.as_duration());
                if client.topic(NOTES).publish(text).key(&name).await.is_ok()
                    && let Some(first) = first.take()
                {
                    let _ = first.send(());
                }
            }
        }
    });
    came.await.context("no settings came")?;
    Ok(pace)
}
