//! Many keys and many sessions, in a short form; the long one is the program `scale`.

use std::time::Duration;

use coracle_tests::mass::Mass;
use coracle_tests::volume::Volume;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_keys_survive_a_kill() {
    let figures =
        Volume { keys: 20_000, bytes: 256 }.measure().await.unwrap_or_else(|error| panic!("{error:#}"));
    println!("{figures}");
    assert!(figures.ready < Duration::from_secs(20), "{figures}");
    assert!(figures.resident_after < 512 << 20, "{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_expire_together_hold_nobody_up() {
    let mass = Mass { sessions: 3_000, within: Duration::from_secs(30) };
    let figures = mass.measure().await.unwrap_or_else(|error| panic!("{error:#}"));
    println!("{figures}");
    // How long each took is for the reader, and for `scale`: this machine may be busy. Nobody waited for all to be gone.
    assert!(figures.asked >= 20, "{figures}");
}
