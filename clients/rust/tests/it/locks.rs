//! Locks: waiting across nodes, running under a lock, losing it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_client::api::Code;
use coracle_client::{Coracle, Error, LossReason};

use crate::fake::{Fake, Reply, Request, nobody};
use crate::sessions::{ID, renewed, sessions};

fn client(endpoints: &[&str]) -> Coracle {
    Coracle::builder()
        .endpoints(endpoints.iter().copied())
        .deadline(Duration::from_secs(2))
        .attempt_timeout(Duration::from_millis(300))
        .build()
        .unwrap()
}

fn acquired() -> Reply {
    Reply::json(200, format!(r#"{{"session":"{ID}","token":811,"valid_for":"900ms","mode":"exclusive"}}"#))
}

fn waiting() -> Reply {
    Reply::json(202, format!(r#"{{"session":"{ID}","position":2,"valid_for":"900ms","blockers":[]}}"#))
}

/// Sessions whose renewals `renew` answers, and locks whose acquires `acquire` answers.
fn locks(
    renew: impl FnMut() -> Reply + Send + 'static,
    mut acquire: impl FnMut() -> Reply + Send + 'static,
) -> impl FnMut(&Request) -> Reply + Send + 'static {
    let mut sessions = sessions(renew);
    move |request| {
        if request.target.contains("/acquire") {
            acquire()
        } else if request.target.contains("/release") {
            Reply::json(200, r#"{"released_to":[],"revision":9}"#)
        } else {
            sessions(request)
        }
    }
}

fn without_renewals(server: &Fake) -> Vec<String> {
    server.lines().into_iter().filter(|line| !line.ends_with("/renew")).collect()
}

#[tokio::test]
async fn a_lock_with_its_own_session() {
    let server = Fake::start(locks(renewed, acquired)).await;
    let lock = client(&[&server.url]).lock("a/b").owner("ci 7").acquire().await.unwrap();
    assert_eq!((lock.token(), lock.fence().to_string().as_str()), (811, "locks/a%2Fb; token=811"));
    lock.check().unwrap();
    lock.release().await.unwrap();
    assert_eq!(
        without_renewals(&server),
        [
            "POST /v1/sessions".to_owned(),
            format!("POST /v1/locks/a%2Fb/acquire?session={ID}&wait=0s&owner=ci%207"),
            format!("DELETE /v1/sessions/{ID}"),
        ]
    );
}

#[tokio::test]
async fn a_lock_with_a_session_of_the_caller() {
    let server = Fake::start(locks(renewed, acquired)).await;
    let client = client(&[&server.url]);
    let session = client.session().open().await.unwrap();
    let lock = client.lock("x").session(&session).shared().acquire().await.unwrap();
    lock.release().await.unwrap();
    drop(client.lock("x").session(&session).acquire().await.unwrap());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let releases =
        server.lines().iter().filter(|l| **l == format!("POST /v1/locks/x/release?session={ID}")).count();
    assert_eq!(releases, 2, "one by release(), one by drop");
    assert!(server.lines()[1].ends_with("&mode=shared"));
}

#[tokio::test]
async fn a_wait_goes_on_at_another_node() {
    let count = Arc::new(AtomicUsize::new(0));
    let step = Arc::clone(&count);
    let server = Fake::start(locks(renewed, move || match step.fetch_add(1, Ordering::Relaxed) {
        0 => waiting(),
        1 => Reply::Cut,
        _ => acquired(),
    }))
    .await;
    let dead = nobody().await;
    let positions = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&positions);
    let lock = client(&[&dead, &server.url])
        .lock("x")
        .wait(Duration::from_secs(25))
        .on_waiting(move |waiting| told.lock().unwrap().push(waiting.position))
        .acquire()
        .await
        .unwrap();
    assert_eq!(lock.token(), 811);
    assert_eq!(*positions.lock().unwrap(), [2]);
    let acquires: Vec<_> = server.lines().into_iter().filter(|l| l.contains("/acquire")).collect();
    assert!(acquires.len() >= 3);
    assert!(acquires.iter().all(|l| l.contains(&format!("session={ID}&wait=10s&keep=true"))), "{acquires:?}");
}

#[tokio::test]
async fn a_wait_that_runs_out_leaves_the_line() {
    let server = Fake::start(locks(renewed, waiting)).await;
    let client = client(&[&server.url]);
    let session = client.session().open().await.unwrap();
    let error =
        client.lock("x").session(&session).wait(Duration::from_millis(60)).acquire().await.unwrap_err();
    assert!(matches!(error, Error::NotAcquired { position: 2, .. }), "{error:?}");
    assert_eq!(without_renewals(&server).last().unwrap(), &format!("POST /v1/locks/x/release?session={ID}"));
}

#[tokio::test]
async fn a_held_lock_is_refused_at_once() {
    let server = Fake::start(locks(renewed, || Reply::problem(Code::LockHeld))).await;
    let error = client(&[&server.url]).lock("x").acquire().await.unwrap_err();
    assert_eq!(error.code(), Some(Code::LockHeld));
    assert_eq!(without_renewals(&server).last().unwrap(), &format!("DELETE /v1/sessions/{ID}"));
}

#[tokio::test]
async fn a_block_under_a_lock_runs_to_its_end() {
    let server = Fake::start(locks(renewed, acquired)).await;
    let lock = client(&[&server.url]).lock("x").acquire().await.unwrap();
    let token = lock.run(|fence| async move { Ok::<_, Error>(fence.token()) }).await.unwrap();
    assert_eq!(token, 811);
    let error = lock.run(|_| async { Err::<(), _>(Error::Invalid("mine".into())) }).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid call: mine");
}

/// Runs a block that never ends and answers how it ended, and whether it was cancelled.
async fn run_until_lost(renew: impl FnMut() -> Reply + Send + 'static) -> (Error, bool) {
    struct Cancelled(Arc<AtomicBool>);
    impl Drop for Cancelled {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let server = Fake::start(locks(renew, acquired)).await;
    let lock = client(&[&server.url]).lock("x").acquire().await.unwrap();
    let cancelled = Arc::new(AtomicBool::new(false));
    let witness = Cancelled(Arc::clone(&cancelled));
    let block = lock.run(|_| async move {
        let _witness = witness;
        std::future::pending::<Result<(), Error>>().await
    });
    let error = tokio::time::timeout(Duration::from_secs(3), block).await.unwrap().unwrap_err();
    assert!(lock.check().is_err());
    assert_eq!(lock.valid_for(), Duration::ZERO);
    (error, cancelled.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_block_is_cancelled_when_the_lock_is_lost() {
    let (error, cancelled) = run_until_lost(|| Reply::Cut).await;
    assert!(matches!(error, Error::ClaimLost { reason: LossReason::OutOfTime, .. }), "{error:?}");
    assert!(cancelled);

    let (error, cancelled) = run_until_lost(|| Reply::problem(Code::SessionExpired)).await;
    assert!(matches!(error, Error::ClaimLost { reason: LossReason::Expired, .. }), "{error:?}");
    assert!(cancelled);

    let revoked = r#"{"valid_for":"900ms","lost":[{"family":"locks","name":"x","token":811,"reason":"broken","revision":820}]}"#;
    let (error, cancelled) = run_until_lost(move || Reply::json(200, revoked)).await;
    assert!(matches!(error, Error::ClaimLost { reason: LossReason::Revoked, .. }), "{error:?}");
    assert!(cancelled);

    // A node that looked at revision 810 cannot have seen the grant at 811; one at 812 must have.
    let mut revision = 808;
    let renew = move || {
        revision += 2;
        Reply::json(200, r#"{"valid_for":"900ms","holds":[]}"#)
            .header("coracle-revision", &revision.to_string())
    };
    let start = std::time::Instant::now();
    let (error, cancelled) = run_until_lost(renew).await;
    assert!(matches!(error, Error::ClaimLost { reason: LossReason::Revoked, .. }), "{error:?}");
    assert!(cancelled);
    assert!(start.elapsed() >= Duration::from_millis(500), "not by the first renewal");
}

#[tokio::test]
async fn a_renewal_that_shows_the_hold_keeps_it() {
    let held =
        r#"{"valid_for":"900ms","holds":[{"family":"locks","name":"x","token":811,"mode":"exclusive"}]}"#;
    let renew = move || Reply::json(200, held).header("coracle-revision", "900");
    let server = Fake::start(locks(renew, acquired)).await;
    let lock = client(&[&server.url]).lock("x").acquire().await.unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    lock.check().unwrap();
}

#[tokio::test]
async fn a_block_that_ends_too_late_is_a_loss() {
    let server = Fake::start(locks(|| Reply::Hang, acquired)).await;
    let lock = client(&[&server.url]).lock("x").acquire().await.unwrap();
    // Blocks the thread past the end of validity, as a long pause of the process would.
    let result = lock.run(|_| async {
        std::thread::sleep(Duration::from_secs(1));
        Ok::<_, Error>(())
    });
    assert!(matches!(result.await, Err(Error::ClaimLost { reason: LossReason::OutOfTime, .. })));
}
