//! A disk that is full: no to what grows, yes to what gives back, and no restart needed when there is room again.
//!
//! Needs a file system of its own, so the right to mount one; where there is none these say so and prove nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::http::Http;
use coracle_tests::wait;

const SMALL_LOG: [&str; 2] = ["--segment-bytes", "1MiB"];

/// A small file system in memory, mounted where a node will have its data.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        println!("not allowed to mount: nothing was tested");
        None
    }

    fn fill(&self) {
        let mut size = 16 << 20;
        let mut all = Vec::new();
        // Until not even a little fits.
        while size >= 4096 {
            let part = self.0.join(format!("fill-{}", all.len()));
            if fs::write(&part, vec![1; size]).is_err() {
                let _ = fs::remove_file(&part);
                size /= 2;
            }
            all.push(part);
        }
    }

    fn free(&self) {
        for entry in fs::read_dir(&self.0).expect("a folder").flatten() {
            if entry.file_name().to_string_lossy().starts_with("fill-") {
                fs::remove_file(entry.path()).expect("removed");
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes until one is refused; answers how many were not.
async fn until_refused(http: &Http) -> usize {
    let value = vec![7; 200_000];
    for n in 0..100 {
        let reply = http.put(&format!("/v1/kv/f/{n:03}"), value.clone()).send().await.expect("an answer");
        if reply.status != 201 {
            assert_eq!((reply.status, reply.code().as_str()), (507, "quota_exceeded"), "{reply:?}");
            return n;
        }
    }
    panic!("the disk does not fill")
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_growth_and_takes_what_gives_back() {
    let mut cluster = Cluster::prepare(1);
    let Some(disk) = Small::mount(cluster.nodes[0].data()) else { return };
    cluster.nodes[0].add(&SMALL_LOG);
    cluster.nodes[0].restart().await;
    let http = cluster.nodes[0].http().clone();
    http.put("/v1/kv/a", "1").expect(201).await;
    let session = http.post("/v1/sessions?ttl=1h", "").expect(201).await.member("id");
    http.post(&format!("/v1/locks/l/acquire?session={session}"), "").expect(200).await;
    disk.fill();
    let written = until_refused(&http).await;
    assert_eq!(http.get("/v1/kv/a").expect(200).await.text(), "1");
    http.get("/readyz").expect(503).await;
    http.post(&format!("/v1/sessions/{session}/renew"), "").expect(200).await;
    http.post(&format!("/v1/locks/l/release?session={session}"), "").expect(200).await;
    http.delete("/v1/kv/a").expect(200).await;
    http.delete(&format!("/v1/sessions/{session}")).expect(200).await;
    disk.free();
    wait::until("it takes writes again", Duration::from_secs(20), || async {
        let reply = http.put("/v1/kv/again", "x").send().await?;
        anyhow::ensure!(reply.status == 201, "{reply:?}");
        anyhow::Ok(())
    })
    .await;
    let state = cluster.converged().await;
    cluster.nodes[0].kill9();
    cluster.nodes[0].restart().await;
    assert_eq!(cluster.converged().await, state);
    assert_eq!(http.get("/v1/kv?count_only=true").expect(200).await.number("count"), written as u64 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_follower_stops_nobody_else() {
    of_one_of_three(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_leader_stops_nobody_else() {
    of_one_of_three(true).await;
}

async fn of_one_of_three(leader: bool) {
    let mut cluster = Cluster::prepare(3);
    let Some(disk) = Small::mount(cluster.nodes[2].data()) else { return };
    for node in &mut cluster.nodes {
        node.add(&SMALL_LOG);
        node.start();
    }
    cluster.ready().await;
    let to = if leader { 2 } else { 0 };
    if cluster.leader().await != to {
        let id = cluster.nodes[to].status().await.expect("an answer")["member_id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let transfer = cluster.nodes[to].http().post(&format!("/v1/members/{id}/transfer"), "");
        transfer.patience(Duration::from_secs(40)).expect(200).await;
        assert_eq!(cluster.leader().await, to);
    }
    disk.fill();
    let value = vec![7; 200_000];
    for n in 0..30 {
        let path = format!("/v1/kv/f/{n:03}");
        // If the full one leads it says no, until another does.
        wait::until("a write", Duration::from_secs(20), || async {
            let reply = cluster.nodes[n % 2].http().put(&path, value.clone()).send().await?;
            anyhow::ensure!(reply.status < 300, "{reply:?}");
            anyhow::Ok(())
        })
        .await;
    }
    disk.free();
    cluster.converged().await;
    let count = cluster.nodes[2].http().get("/v1/kv?prefix=f/&count_only=true").expect(200).await;
    assert_eq!(count.number("count"), 30);
}
