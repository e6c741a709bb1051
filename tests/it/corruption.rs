//! Damage on disk: a torn end is normal after a crash, anything else is refused with a clear message.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::files;
use coracle_tests::wait;

/// One node with some keys, killed.
async fn killed() -> Cluster {
    let mut cluster = Cluster::start(1).await;
    for n in 0..200 {
        cluster.nodes[0].http().put(&format!("/v1/kv/k{n:03}"), format!("value {n}")).expect(201).await;
    }
    cluster.nodes[0].kill9();
    cluster
}

fn segment(cluster: &Cluster) -> PathBuf {
    files::ending(&cluster.nodes[0].data().join("log"), ".log").pop().expect("a segment")
}

async fn has_all(cluster: &mut Cluster) {
    let list = cluster.nodes[0].http().get("/v1/kv?prefix=k&limit=1000").expect(200).await.json();
    let items = list["items"].as_array().expect("items");
    assert_eq!(items.len(), 200);
    for (n, item) in items.iter().enumerate() {
        assert_eq!(
            (item["key"].as_str(), item["value"].as_str()),
            (Some(&*format!("k{n:03}")), Some(&*format!("value {n}")))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_of_the_log_is_normal() {
    let mut cluster = killed().await;
    let segment = segment(&cluster);
    // A batch that was being written when the power went: some of its bytes are there.
    for torn in [&[0x5a; 100][..], &[0xff; 4096], &[1, 0, 0, 0, 7]] {
        let end = files::written(&segment).next_multiple_of(8);
        files::overwrite(&segment, end, torn);
        cluster.nodes[0].restart().await;
        has_all(&mut cluster).await;
        cluster.nodes[0].kill9();
    }
    cluster.nodes[0].restart().await;
    has_all(&mut cluster).await;
    cluster.nodes[0].http().put("/v1/kv/more", "x").expect(201).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_log_is_refused() {
    let mut cluster = killed().await;
    let segment = segment(&cluster);
    let intact = fs::read(&segment).expect("a segment");
    let end = files::written(&segment);
    for offset in [end / 3, end / 2, end - end / 4] {
        files::flip(&segment, offset);
        let said = cluster.nodes[0].refuses_to_start().await;
        let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(said.contains(&name), "the message names no file: {said}");
        fs::write(&segment, &intact).expect("written");
    }
    cluster.nodes[0].restart().await;
    has_all(&mut cluster).await;
}

/// A second after it was written the mark beside the log knows of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_cut_short_is_refused() {
    let mut cluster = Cluster::start(1).await;
    let mark = cluster.nodes[0].data().join("HIGH-WATER");
    let http = cluster.nodes[0].http().clone();
    http.put("/v1/kv/early", "x").expect(201).await;
    let segment = segment(&cluster);
    let cut = files::written(&segment);
    http.put("/v1/kv/late", "x").expect(201).await;
    let before = fs::read(&mark).expect("a mark");
    wait::until("the mark is raised", Duration::from_secs(10), || async {
        http.put("/v1/kv/later", "x").send().await?;
        anyhow::ensure!(fs::read(&mark)? != before, "not yet");
        anyhow::Ok(())
    })
    .await;
    cluster.nodes[0].kill9();
    files::overwrite(&segment, cut, &vec![0; files::written(&segment) - cut]);
    let said = cluster.nodes[0].refuses_to_start().await;
    assert!(said.contains("HIGH-WATER") || said.contains("lost"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_log_is_refused() {
    let mut cluster = killed().await;
    fs::remove_dir_all(cluster.nodes[0].data().join("log")).expect("removed");
    let said = cluster.nodes[0].refuses_to_start().await;
    println!("{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_refused() {
    let mut cluster = killed().await;
    cluster.nodes[0].restart().await;
    cluster.nodes[0].terminate().await;
    let database = files::ending(cluster.nodes[0].data(), ".redb").pop().expect("a checkpoint");
    let intact = fs::read(&database).expect("a checkpoint");
    // Where a value stands: the database itself would not notice.
    let needle = b"value 123";
    let places: Vec<usize> =
        intact.windows(needle.len()).enumerate().filter(|(_, w)| w == needle).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the value is not in the checkpoint as it is");
    let mut damaged = intact.clone();
    for place in &places {
        damaged[place + 6] ^= 1;
    }
    fs::write(&database, &damaged).expect("written");
    let said = cluster.nodes[0].refuses_to_start().await;
    assert!(said.contains(".redb") || said.contains("checkpoint"), "{said}");
    // And its beginning, where the database keeps its own books.
    let mut damaged = intact.clone();
    damaged[..256].fill(0);
    fs::write(&database, &damaged).expect("written");
    cluster.nodes[0].refuses_to_start().await;
    fs::write(&database, &intact).expect("written");
    cluster.nodes[0].restart().await;
    has_all(&mut cluster).await;
}

/// Whatever byte of whatever file is flipped: the node refuses, or it has everything.
#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_byte_is_served() {
    let mut cluster = killed().await;
    let copy = cluster.folder().join("copy");
    files::copy(cluster.nodes[0].data(), &copy);
    let all: Vec<PathBuf> =
        files::ending(&copy, "").into_iter().filter(|path| files::written(path) > 0).collect();
    for round in 0..16 {
        files::restore(&copy, cluster.nodes[0].data());
        let path = &all[round % all.len()];
        let offset = rand::random_range(0..files::written(path));
        let place = cluster.nodes[0].data().join(path.strip_prefix(&copy).expect("in the copy"));
        files::flip(&place, offset);
        println!("flipped {offset} of {}", place.display());
        cluster.nodes[0].start();
        let served = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            loop {
                if !cluster.nodes[0].runs() {
                    return false;
                }
                if cluster.nodes[0].http().get("/readyz").send().await.is_ok_and(|reply| reply.status == 200)
                {
                    return true;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("it serves or ends");
        assert!(!cluster.nodes[0].log().contains("panicked"), "a panic");
        if served {
            has_all(&mut cluster).await;
        }
        cluster.nodes[0].kill9();
    }
}
