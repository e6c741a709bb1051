//! Many keys, in a short form; the long one is the program `scale`.

use std::time::Duration;

use coracle_tests::volume::Volume;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_keys_survive_a_kill() {
    let figures =
        Volume { keys: 20_000, bytes: 256 }.measure().await.unwrap_or_else(|error| panic!("{error:#}"));
    println!("{figures}");
    assert!(figures.ready < Duration::from_secs(20), "{figures}");
    assert!(figures.resident_after < 512 << 20, "{figures}");
}
