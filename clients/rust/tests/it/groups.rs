//! Membership of a group: it heals, with what was said last; and when it does not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_client::api::Code;
use coracle_client::{Coracle, Membership};

use crate::fake::{Fake, Reply, Request};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn client(server: &Fake) -> Coracle {
    Coracle::builder()
        .endpoints([server.url.as_str()])
        .deadline(Duration::from_secs(2))
        .attempt_timeout(Duration::from_millis(300))
        .build()
        .unwrap()
}

/// What the server is to say; each test changes it as it goes on.
#[derive(Default)]
struct Says {
    /// Sessions opened so far, and how many of the next openings fail.
    opened: u64,
    refusals: u64,
    /// The session that has expired.
    expired: Option<String>,
    /// Members of renewals: what was lost.
    lost: String,
}

fn id(number: u64) -> String {
    format!("7587d8aa{number:08x}")
}

async fn start() -> (Fake, Arc<Mutex<Says>>) {
    let says = Arc::new(Mutex::new(Says::default()));
    let script = Arc::clone(&says);
    let server = Fake::start(move |request: &Request| {
        let mut says = script.lock().unwrap();
        let path = request.target.split('?').next().unwrap_or_default();
        let of_expired =
            says.expired.as_ref().is_some_and(|expired| request.target.contains(expired.as_str()));
        match (request.method.as_str(), path) {
            ("POST", "/v1/sessions") if says.refusals > 0 => {
                says.refusals -= 1;
                Reply::problem(Code::QuotaExceeded)
            }
            ("POST", "/v1/sessions") => {
                says.opened += 1;
                let id = id(says.opened);
                Reply::json(201, format!(r#"{{"id":"{id}","ttl":"900ms","valid_for":"900ms","revision":1}}"#))
            }
            _ if of_expired => Reply::problem(Code::SessionExpired),
            ("POST", _) => Reply::json(200, format!(r#"{{"valid_for":"900ms"{}}}"#, says.lost)),
            ("PUT", _) => {
                let (view, session) = (says.opened, id(says.opened));
                let member = format!(r#""id":"w/1","session":"{session}","valid_for":"900ms""#);
                Reply::json(201, format!(r#"{{{member},"size":1,"view":{view},"revision":9}}"#))
            }
            _ => Reply::json(200, r#"{"released":[],"revision":9}"#),
        }
    })
    .await;
    (server, says)
}

async fn joined(server: &Fake) -> Membership {
    let join = client(server).group("crew").join("w/1").payload("10.0.0.7").ttl(Duration::from_millis(900));
    join.start().await.unwrap()
}

/// Where and what it joined with, in turn.
fn puts(server: &Fake) -> Vec<(String, String)> {
    let puts = server.seen().into_iter().filter(|request| request.method == "PUT");
    puts.map(|request| (request.target.clone(), String::from_utf8(request.body).unwrap())).collect()
}

fn at(session: u64, more: &str) -> String {
    format!("/v1/groups/crew/members/w%2F1?session={}{more}", id(session))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_member_says_what_is_new_and_leaves_with_its_session() {
    let (server, _) = start().await;
    let member = joined(&server).await;
    assert_eq!(member.joined().map(|joined| joined.view), Some(1));
    member.say("10.0.0.8");
    until("the new payload is told", || puts(&server).len() == 2).await;
    member.report(40);
    until("the progress is told", || puts(&server).len() == 3).await;
    member.leave().await.unwrap();
    assert_eq!(
        puts(&server),
        [
            (at(1, ""), "10.0.0.7".to_owned()),
            (at(1, ""), "10.0.0.8".to_owned()),
            (at(1, "&progress=40"), "10.0.0.8".to_owned())
        ]
    );
    assert_eq!(server.lines().last().unwrap(), &format!("DELETE /v1/sessions/{}", id(1)));
}

#[tokio::test]
async fn a_member_whose_session_is_lost_comes_back_with_what_it_said_last() {
    let (server, says) = start().await;
    let member = joined(&server).await;
    member.report(70);
    until("the progress is told", || puts(&server).len() == 2).await;
    let mut changes = member.changes();
    {
        let mut says = says.lock().unwrap();
        says.expired = Some(id(1));
        // And it takes some attempts.
        says.refusals = 2;
    }
    let out = tokio::time::timeout(PATIENCE, changes.wait_for(Option::is_none)).await;
    assert!(out.expect("the loss is told").is_ok());
    let back = tokio::time::timeout(PATIENCE, changes.wait_for(Option::is_some)).await;
    assert!(back.expect("it comes back").is_ok());
    assert_eq!(member.joined().map(|joined| joined.view), Some(2), "with another session");
    assert_eq!(puts(&server).last().unwrap(), &(at(2, "&progress=70"), "10.0.0.7".to_owned()));
    // And goes on: what is said now is said with the new session, which is the one to end.
    member.say("10.0.0.9");
    until("it is told", || puts(&server).last().unwrap().1 == "10.0.0.9").await;
    member.leave().await.unwrap();
    assert_eq!(server.lines().last().unwrap(), &format!("DELETE /v1/sessions/{}", id(2)));
}

#[tokio::test]
async fn a_member_that_somebody_took_out_stays_out() {
    for reason in ["removed", "taken"] {
        let (server, says) = start().await;
        let member = joined(&server).await;
        // What becomes of others is nothing to it.
        let lost = |name: &str, item: &str| {
            format!(
                r#"{{"family":"groups","name":"{name}","item":"{item}","reason":"{reason}","revision":7}}"#
            )
        };
        says.lock().unwrap().lost = format!(r#","lost":[{},{}]"#, lost("others", "w/1"), lost("crew", "w2"));
        let renewals = || server.lines().iter().filter(|line| line.contains("/renew")).count();
        until("it is renewed", || renewals() >= 2).await;
        assert!(member.joined().is_some());
        says.lock().unwrap().lost = format!(r#","lost":[{}]"#, lost("crew", "w/1"));
        tokio::time::timeout(PATIENCE, member.removed()).await.expect("it is told");
        assert_eq!(member.joined(), None);
        member.say("again");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(puts(&server).len(), 1, "{:?}", puts(&server));
    }
}

#[tokio::test]
async fn who_is_dropped_is_no_member_any_more() {
    let (server, _) = start().await;
    drop(joined(&server).await);
    let closed = format!("DELETE /v1/sessions/{}", id(1));
    until("its session is closed", || server.lines().contains(&closed)).await;
}
