//! The bytes of entries, votes and memberships are what they were.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coracle_raft::codec::{self, Input};
use coracle_raft::types::{Entry, EntryPayload, Member, Membership, StoredMembership, Vote};
use proptest::prelude::*;

use super::fixture::{entry, id};

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|d| char::from_digit(d.into(), 16).expect("a digit"))
        .collect()
}

fn encoded(entry: &Entry) -> Bytes {
    let mut out = Vec::new();
    codec::put_entry(&mut out, entry);
    out.into()
}

fn membership(voters: Vec<BTreeSet<u64>>, learners: &BTreeSet<u64>) -> Membership {
    let ids = voters.iter().flatten().chain(learners).copied();
    let member = |id: u64| Member {
        name: format!("n{id}"),
        peer: format!("h:{id}"),
        client: format!("http://h:{id}"),
    };
    let nodes: BTreeMap<u64, Member> = ids.map(|id| (id, member(id))).collect();
    Membership::new(voters, nodes).expect("each voter has a node")
}

#[test]
fn bytes_are_pinned() {
    let blank = Entry { log_id: id(1, 2), payload: EntryPayload::Blank };
    assert_eq!(hex(&encoded(&blank)), "0001000000000000000200000000000000");
    let normal = hex(&encoded(&entry(3, 4, 2)));
    assert_eq!(normal, "0103000000000000000400000000000000a30f0000000000003435");

    let m = membership(vec![BTreeSet::from([1]), BTreeSet::from([1, 2])], &BTreeSet::new());
    let m = Entry { log_id: id(1, 5), payload: EntryPayload::Membership(m) };
    let expected = concat!(
        "0201000000000000000500000000000000",
        "02000000010000000100000000000000020000000100000000000000020000000000000002000000",
        "0100000000000000",
        "13000000",
        "83626e3163683a316a687474703a2f2f683a31",
        "0200000000000000",
        "13000000",
        "83626e3263683a326a687474703a2f2f683a32",
    );
    assert_eq!(hex(&encoded(&m)), expected);

    let mut out = Vec::new();
    codec::put_vote(&mut out, &Vote::new_committed(5, 6));
    assert_eq!(hex(&out), "0500000000000000060000000000000001");
}

#[test]
fn malformed_bytes_are_refused() {
    let whole = encoded(&Entry {
        log_id: id(1, 5),
        payload: EntryPayload::Membership(membership(vec![BTreeSet::from([1, 2])], &BTreeSet::from([3]))),
    });
    assert!(codec::entry(&whole).is_ok());
    for cut in 0..whole.len() {
        assert!(codec::entry(&whole.slice(..cut)).is_err(), "cut={cut}");
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    assert!(codec::entry(&longer.into()).is_err());
    assert!(codec::entry(&Bytes::from_static(&[9; 17])).is_err());
    // A count far beyond the bytes must not be believed.
    let mut count = whole.to_vec();
    count[17..21].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(codec::entry(&count.into()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(
        term in any::<u64>(), index in any::<u64>(), size in 0usize..300,
        voters in prop::collection::vec(prop::collection::btree_set(1u64..9, 1..4), 0..3),
        learners in prop::collection::btree_set(1u64..20, 0..4),
    ) {
        let normal = entry(term >> 8, index >> 16, size);
        let bytes = encoded(&normal);
        prop_assert_eq!(bytes.len(), codec::entry_length(&normal));
        prop_assert_eq!(codec::entry_log_id(&bytes).unwrap(), normal.log_id);
        prop_assert_eq!(&codec::entry(&bytes).unwrap(), &normal);

        let stored = StoredMembership::new(Some(id(term, index)), membership(voters, &learners));
        let mut out = Vec::new();
        codec::put_stored_membership(&mut out, &stored);
        let mut input = Input(&out);
        prop_assert_eq!(codec::stored_membership(&mut input).unwrap(), stored);
        prop_assert!(input.end().is_ok());
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = codec::entry(&bytes.clone().into());
        let _ = codec::stored_membership(&mut Input(&bytes));
    }
}
