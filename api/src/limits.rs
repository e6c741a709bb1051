//! Limits of a server: `GET /v1/limits`.

use serde::{Deserialize, Serialize};

use crate::Span;

/// Everything a client can run into, checked before anything is proposed. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Limits {
    /// Keys and names.
    pub key_bytes_max: u64,
    pub value_bytes_max: u64,
    /// The `meta` of sessions and the like.
    pub metadata_bytes_max: u64,
    /// The body of a request that is not a bare value.
    pub body_bytes_max: u64,
    pub transaction_operations_max: u64,
    pub list_items_default: u64,
    pub list_items_max: u64,
    pub wait_max: Span,
    pub session_ttl_min: Span,
    pub session_ttl_default: Span,
    pub session_ttl_max: Span,
    pub holds_per_session_max: u64,
    pub waiters_per_object_max: u64,
    /// Requests that wait at one node.
    pub waiting_requests_max: u64,
    pub instances_per_service_max: u64,
    /// Instances of one pick.
    pub pick_instances_max: u64,
    /// Messages of one send, and of one receive with receipts of one ack.
    pub send_messages_max: u64,
    pub receive_messages_max: u64,
    /// A receive ends with the message that brings its values to this.
    pub receive_bytes_max: u64,
    pub message_headers_max: u64,
    /// Messages, and bytes of them, of one publish.
    pub publish_messages_max: u64,
    pub publish_bytes_max: u64,
    /// What `max_per_key` of a topic may ask for.
    pub messages_per_key_max: u64,
    pub subscriptions_per_topic_max: u64,
    /// Unsettled deliveries of one subscription.
    pub deliveries_in_flight_max: u64,
    /// Items of one generation of a barrier queue, and ids that it may wait for.
    pub generation_items_max: u64,
    pub generation_ids_max: u64,
    pub parties_per_barrier_max: u64,
    pub count_per_latch_max: u64,
    /// Members that a barrier or a latch names beforehand.
    pub declared_members_max: u64,
    pub members_per_group_max: u64,
    pub slots_per_group_max: u64,
    /// Locks acquired together.
    pub locks_together_max: u64,
    /// How long a lock may stay closed after an expiry.
    pub lock_delay_max: Span,
    pub semaphore_permits_max: u64,
    /// What a leader says.
    pub election_value_bytes_max: u64,
    pub idempotency_key_bytes_max: u64,
    /// How long the first result of an `Idempotency-Key` is remembered.
    pub idempotency_retention: Span,
    /// Streams of one node.
    pub streams_max: u64,
    pub quota_bytes: u64,
}
