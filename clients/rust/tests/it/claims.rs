//! Permits and leadership: waits that go on elsewhere, what is said as the leader, losses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_client::api::Code;
use coracle_client::{ClaimGuard, Coracle, Error, LossReason};

use crate::fake::{Fake, Reply, Request, nobody};
use crate::sessions::{ID, renewed, sessions};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn client(endpoints: &[&str]) -> Coracle {
    Coracle::builder()
        .endpoints(endpoints.iter().copied())
        .deadline(Duration::from_secs(5))
        .attempt_timeout(Duration::from_millis(300))
        .build()
        .unwrap()
}

fn waiting() -> Reply {
    Reply::json(202, format!(r#"{{"session":"{ID}","position":2,"valid_for":"900ms","blockers":[]}}"#))
}

fn permits() -> Reply {
    Reply::json(200, format!(r#"{{"session":"{ID}","token":811,"valid_for":"900ms","permits":2}}"#))
}

fn elected() -> Reply {
    Reply::json(200, format!(r#"{{"leader":"{ID}","session":"{ID}","token":811,"valid_for":"900ms"}}"#))
}

/// Sessions whose renewals `renew` answers; the n-th claim as `claim` says; what is given back is taken.
fn server(
    renew: impl FnMut() -> Reply + Send + 'static,
    claim: impl Fn(usize) -> Reply + Send + 'static,
) -> impl FnMut(&Request) -> Reply + Send + 'static {
    let mut sessions = sessions(renew);
    let claims = AtomicUsize::new(0);
    move |request| {
        let path = request.target.split('?').next().unwrap_or_default();
        match path.rsplit('/').next() {
            Some("acquire" | "campaign") => claim(claims.fetch_add(1, Ordering::Relaxed)),
            Some("release") => Reply::json(200, r#"{"released_to":[],"revision":9}"#),
            Some("resign") => Reply::json(200, r#"{"leader":null,"revision":9}"#),
            Some("proclaim") => Reply::json(200, r#"{"valid_for":"900ms","token":811}"#),
            _ => sessions(request),
        }
    }
}

fn of(server: &Fake, verb: &str) -> Vec<Request> {
    server.seen().into_iter().filter(|request| request.target.contains(verb)).collect()
}

#[tokio::test]
async fn permits_are_waited_for_across_nodes() {
    let script = |n| match n {
        0 => waiting(),
        1 => Reply::Cut,
        2 => Reply::problem(Code::NoLeader),
        _ => permits(),
    };
    let server = Fake::start(server(renewed, script)).await;
    let dead = nobody().await;
    let permits = client(&[&dead, &server.url])
        .semaphore("gpu")
        .permits(2)
        .limit(5)
        .wait(Duration::from_secs(25))
        .acquire()
        .await
        .unwrap();
    assert_eq!((permits.token(), permits.fence().to_string().as_str()), (811, "semaphores/gpu; token=811"));
    let asked = of(&server, "/acquire");
    let expected = format!("/v1/semaphores/gpu/acquire?session={ID}&wait=10s&keep=true&permits=2&limit=5");
    assert!(asked.len() >= 4 && asked.iter().all(|request| request.target == expected), "{asked:?}");
    permits.release().await.unwrap();
    assert_eq!(server.lines().last().unwrap(), &format!("DELETE /v1/sessions/{ID}"));
}

#[tokio::test]
async fn permits_that_are_not_free_are_refused_at_once() {
    let server = Fake::start(server(renewed, |_| Reply::problem(Code::PermitsExhausted))).await;
    let error = client(&[&server.url]).semaphore("gpu").limit(1).acquire().await.unwrap_err();
    assert_eq!(error.code(), Some(Code::PermitsExhausted));
    assert_eq!(of(&server, "/acquire").len(), 1, "no is an answer");
}

#[tokio::test]
async fn a_candidate_says_the_same_at_every_node_and_gives_its_session_back_the_term() {
    let script = |n| match n {
        0 => waiting(),
        1 => Reply::Cut,
        _ => elected(),
    };
    let server = Fake::start(server(renewed, script)).await;
    let client = client(&[&server.url]);
    let session = client.session().open().await.unwrap();
    let campaign = client.election("cron").campaign("10.0.0.7:80").priority(9);
    let term = campaign.session(&session).wait(Duration::MAX).acquire().await.unwrap();
    let asked = of(&server, "/campaign");
    let expected = format!("/v1/elections/cron/campaign?session={ID}&wait=10s&keep=true&priority=9");
    assert!(asked.len() >= 3);
    assert!(
        asked.iter().all(|request| request.target == expected && request.body == b"10.0.0.7:80"),
        "{asked:?}"
    );

    client.election("cron").proclaim(&term, "10.0.0.7:81").await.unwrap();
    let said = of(&server, "/proclaim").pop().unwrap();
    assert_eq!(said.target, format!("/v1/elections/cron/proclaim?session={ID}&token=811"));
    assert_eq!(said.body, b"10.0.0.7:81");
    term.release().await.unwrap();
    assert_eq!(
        of(&server, "/resign").pop().unwrap().target,
        format!("/v1/elections/cron/resign?session={ID}")
    );
}

#[tokio::test]
async fn a_term_that_somebody_else_has_by_now_is_told_as_lost() {
    let script = server(renewed, |_| elected());
    let mut script = script;
    let server = Fake::start(move |request| {
        if request.target.contains("/resign") { Reply::problem(Code::NotLeader) } else { script(request) }
    })
    .await;
    let client = client(&[&server.url]);
    let session = client.session().open().await.unwrap();
    let term = client.election("cron").campaign("a").session(&session).acquire().await.unwrap();
    let error = term.release().await.unwrap_err();
    assert!(matches!(error, Error::ClaimLost { reason: LossReason::Revoked, .. }), "{error:?}");
}

/// Lead, or hold permits, with renewals answered as `renew` says.
async fn held(election: bool, renew: impl FnMut() -> Reply + Send + 'static) -> (Fake, ClaimGuard) {
    let server = Fake::start(server(renew, move |_| if election { elected() } else { permits() })).await;
    let client = client(&[&server.url]);
    let claim = if election { client.election("x").campaign("a") } else { client.semaphore("x").permits(2) };
    let guard = claim.acquire().await.unwrap();
    (server, guard)
}

#[tokio::test]
async fn losses_cancel_what_runs_under_the_claim() {
    for election in [true, false] {
        let family = if election { "elections" } else { "semaphores" };
        let taken = format!(
            r#"{{"valid_for":"900ms","lost":[{{"family":"{family}","name":"x","token":811,"reason":"broken","revision":820}}]}}"#
        );
        let ends: [(Box<dyn FnMut() -> Reply + Send>, LossReason); 3] = [
            (Box::new(move || Reply::json(200, taken.clone())), LossReason::Revoked),
            (Box::new(|| Reply::problem(Code::SessionExpired)), LossReason::Expired),
            (Box::new(|| Reply::Hang), LossReason::OutOfTime),
        ];
        for (renew, expected) in ends {
            let (_server, guard) = held(election, renew).await;
            let run = guard.run(|_| std::future::pending::<Result<(), Error>>());
            let error = tokio::time::timeout(PATIENCE, run).await.expect("it is cancelled").unwrap_err();
            assert!(
                matches!(error, Error::ClaimLost { reason, .. } if reason == expected),
                "{family}: {error:?}"
            );
        }
    }
}

#[tokio::test]
async fn another_claim_of_that_name_and_token_is_another() {
    // A session that ends hands a lock and permits of one name on in one entry: they have one token.
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let renew = move || {
        count.fetch_add(1, Ordering::Relaxed);
        let lost = r#"[{"family":"locks","name":"x","token":811,"reason":"broken","revision":820}]"#;
        let holds = r#"[{"family":"semaphores","name":"x","token":811}]"#;
        Reply::json(200, format!(r#"{{"valid_for":"900ms","holds":{holds},"lost":{lost}}}"#))
            .header("coracle-revision", "900")
    };
    let (_server, permits) = held(false, renew).await;
    let end = std::time::Instant::now() + PATIENCE;
    while told.load(Ordering::Relaxed) < 2 {
        assert!(std::time::Instant::now() < end, "renewed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    permits.check().expect("a lock was broken, not the semaphore");
}
