//! Golden JSON of every body: what we write today is what clients parse tomorrow.

use std::fmt::Debug;

use coracle_api::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// `json` is exactly what the value it parses to is written as.
fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(json: &str) -> T {
    let value: T = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
    assert_eq!(serde_json::to_string(&value).unwrap(), json);
    value
}

/// `json` is refused with a message that contains `why`.
fn refused<T: DeserializeOwned + Debug>(json: &str, why: &str) {
    let error = serde_json::from_str::<T>(json).expect_err(json).to_string();
    assert!(error.contains(why), "{json}: {error}");
}

#[test]
fn kv() {
    let entry: Entry = golden(
        r#"{"key":"app/color","value":"blue","content_type":"text/plain; charset=utf-8","create_revision":41,"mod_revision":43,"version":2,"session":"7587d8aa00000001"}"#,
    );
    assert_eq!(entry.value.unwrap().bytes, "blue");
    let binary: Entry = golden(
        r#"{"key_base64":"//4=","value_base64":"AP8=","content_type":"application/octet-stream","create_revision":1,"mod_revision":1,"version":1}"#,
    );
    assert_eq!((binary.key.as_bytes(), &binary.value.unwrap().bytes[..]), (&b"\xff\xfe"[..], &b"\0\xff"[..]));
    golden::<Entry>(r#"{"key":"a","create_revision":1,"mod_revision":1,"version":1}"#);
    golden::<Entry>(
        r#"{"key":"a","value":{"b": 1.0},"content_type":"application/json","create_revision":1,"mod_revision":1,"version":1}"#,
    );
    golden::<Put>(
        r#"{"key":"a","revision":43,"version":2,"session":"7587d8aa00000001","previous":{"key":"a","create_revision":1,"mod_revision":1,"version":1}}"#,
    );
    golden::<Deleted>(r#"{"deleted":1,"revision":44}"#);
    golden::<KvList>(
        r#"{"items":[{"key":"a","create_revision":1,"mod_revision":1,"version":1}],"prefixes":[{"prefix":"app/"},{"prefix_base64":"/y8="}],"count":7,"next_cursor":"c1","revision":44}"#,
    );
    golden::<KvList>(r#"{"items":[],"next_cursor":null,"revision":44}"#);
    golden::<KvHistory>(
        r#"{"items":[{"revision":1,"time":"2026-11-22T05:40:11Z","entry":{"key":"a","create_revision":1,"mod_revision":1,"version":1}},{"revision":2,"time":"2026-11-22T05:40:12Z","entry":null}],"compact_revision":0,"revision":44}"#,
    );
    golden::<Page<Lock>>(r#"{"items":[],"next_cursor":null,"revision":44}"#);
    refused::<Entry>(r#"{"create_revision":1,"mod_revision":1,"version":1}"#, "key is missing");
}

#[test]
fn topics() {
    golden::<TopicConfig>(
        r#"{"max_age":"24h","max_bytes":1000,"max_messages":7,"max_per_key":1,"overflow":"reject"}"#,
    );
    refused::<TopicConfig>(r#"{"max_count":3}"#, "unknown field `max_count`");
    golden::<Topic>(
        r#"{"name":"orders","messages":2,"bytes":530,"last_seq":5,"first_seq":4,"first_time":"2026-11-22T05:40:11Z","subscriptions":1,"config":{"max_age":"24h"},"configured":false}"#,
    );
    golden::<Published>(r#"{"seq":5,"revision":41}"#);
    golden::<Published>(r#"{"first_seq":4,"seq":5,"revision":41}"#);
    golden::<TopicDeleted>(r#"{"messages":2,"subscriptions":1,"revision":42}"#);
    let batch: PublishBatch = golden(
        r#"{"items":[{"key":"a","ttl":"5s","headers":{"trace":"1"},"value":"x","content_type":"text/plain; charset=utf-8"}]}"#,
    );
    assert_eq!(batch.items[0].value.bytes, "x");
    refused::<PublishBatch>(r#"{"items":[{"vaule":"x"}]}"#, "unknown field `vaule`");
    refused::<PublishBatch>(r#"{"items":[{"key":"x"}]}"#, "value");
    let message = r#""topic":"orders","seq":5,"revision":41,"time":"2026-11-22T05:40:11Z","key":"a","value":{"b": 1.0},"content_type":"application/json","headers":{"trace":"1"},"expires":"2026-11-22T05:40:16Z""#;
    golden::<TopicMessage>(&format!("{{{message}}}"));
    golden::<TopicMessage>(
        r#"{"topic":"orders.dead","seq":1,"revision":43,"time":"2026-11-22T05:40:11Z","value_base64":"AP8=","content_type":"application/octet-stream","dead":{"topic":"orders","seq":5,"subject":"orders","subscription":"mailer","deliveries":5,"reason":"no such address"}}"#,
    );
    golden::<TopicMessages>(&format!(
        r#"{{"items":[{{{message}}}],"after":5,"more":true,"gap":{{"from":1,"to":4}},"revision":43}}"#
    ));
    let delivery = format!(r#"{{"receipt":"r1:x","deliveries":2,"until":"2026-11-22T05:41:11Z",{message}}}"#);
    golden::<TopicDelivery>(&delivery);
    refused::<TopicDelivery>(&format!("{{{message}}}"), "receipt is missing");
    golden::<TopicReceived>(&format!(
        r#"{{"items":[{delivery}],"acks":[{{"receipt":"r1:y","ok":false}}],"session":"7587d8aa00000001","valid_for":"15s","revision":44}}"#
    ));
    golden::<SettledMany>(r#"{"items":[{"receipt":"r1:x","ok":true}],"revision":45}"#);
    golden::<Receipts>(r#"{"receipts":["r1:x"]}"#);
    golden::<SubscriptionConfig>(
        r#"{"from":"first","mode":"exclusive","filter":"a.*","visibility":"30s","max_deliveries":5,"dead_letter":"lost"}"#,
    );
    golden::<Subscription>(
        r#"{"name":"mailer","topic":"orders.>","mode":"shared","visibility":"30s","max_deliveries":5,"dead_letter":"mailer.dead","after":41,"lag":10000,"lag_is_more":true,"oldest":"2026-11-22T05:40:11Z","in_flight":1,"returned":0,"delivered":3,"acked":2,"dead":0,"gaps":0,"created":"2026-11-22T05:40:11Z"}"#,
    );
    for frame in [
        format!(r#"{{"type":"change","revision":41,"after":5,"events":[{{{message}}}]}}"#),
        r#"{"type":"synced","revision":41,"after":5}"#.to_owned(),
        r#"{"type":"progress","revision":42,"after":5}"#.to_owned(),
        r#"{"type":"gap","from":1,"to":4}"#.to_owned(),
        r#"{"type":"lagged","after":5}"#.to_owned(),
        r#"{"type":"bye","reason":"shutdown","after":5}"#.to_owned(),
    ] {
        golden::<TopicFrame>(&frame);
    }
    assert_eq!(
        serde_json::from_str::<TopicFrame>(r#"{"type":"of_the_future"}"#).unwrap(),
        TopicFrame::Other { kind: "of_the_future".into() }
    );
    refused::<TopicFrame>(r#"{"type":"synced","revision":41}"#, "after");
}

#[test]
fn counters_and_latches() {
    golden::<Counter>(r#"{"name":"sold","value":-3,"mod_revision":41}"#);
    golden::<Counted>(r#"{"value":100,"previous":0,"revision":41}"#);
    golden::<LatchConfig>(r#"{"count":3}"#);
    golden::<LatchConfig>(r#"{"members":["api","db"]}"#);
    refused::<LatchConfig>(r#"{"cuont":3}"#, "unknown field `cuont`");
    refused::<LatchConfig>(r#"{"count":-1}"#, "invalid value");
    golden::<Latch>(r#"{"name":"nightly","count":3,"left":3,"open":false}"#);
    golden::<Latch>(r#"{"name":"nightly","count":2,"left":1,"open":false,"missing":["db"]}"#);
    golden::<CountedDown>(r#"{"count":3,"left":2,"counted":true,"revision":41}"#);
}

#[test]
fn fences() {
    golden::<Fence>(r#"{"name":"printer-7","token":811,"mod_revision":812}"#);
    golden::<FencePassed>(r#"{"token":812,"previous":811,"revision":813}"#);
    golden::<FencePassed>(r#"{"token":812,"revision":813}"#);
}

#[test]
fn barriers() {
    golden::<BarrierConfig>(r#"{"kind":"cyclic","parties":3,"timeout":"1m"}"#);
    golden::<BarrierConfig>(r#"{"kind":"double","exact":false,"members":["api","db"]}"#);
    golden::<BarrierConfig>(r#"{"kind":"gate"}"#);
    refused::<BarrierConfig>(r#"{"kind":"turnstile"}"#, "unknown variant `turnstile`");
    refused::<BarrierConfig>(r#"{"partys":3}"#, "unknown field `partys`");
    golden::<Barrier>(
        r#"{"name":"go","kind":"gate","open":true,"generation":812,"waiting":0,"inside":0,"leaving":0}"#,
    );
    golden::<Barrier>(
        r#"{"name":"step","kind":"cyclic","parties":3,"timeout":"1m","generation":812,"waiting":1,"inside":0,"leaving":0,"breaks":"2026-11-22T05:41:11Z","present":[{"id":"a","session":"7587d8aa00000001","since":"2026-11-22T05:40:11Z","inside":false}],"missing":["b","c"]}"#,
    );
    golden::<Entered>(
        r#"{"id":"a","generation":812,"index":0,"session":"7587d8aa00000001","valid_for":"15s"}"#,
    );
    golden::<Entering>(
        r#"{"id":"a","generation":812,"position":1,"waiting":1,"parties":3,"missing":["b","c"]}"#,
    );
    golden::<Leaving>(r#"{"generation":812,"inside":2}"#);
    golden::<Gate>(r#"{"open":true,"revision":813}"#);
    golden::<HoldFrame>(
        r#"{"type":"acquired","session":"7587d8aa00000001","token":812,"valid_for":"15s","id":"a","index":0}"#,
    );
}

#[test]
fn groups() {
    golden::<Group>(r#"{"name":"workers","size":2,"view":41}"#);
    golden::<Group>(
        r#"{"name":"workers","size":1,"view":41,"members":[{"id":"w1","session":"7587d8aa00000001","since":"2026-11-22T05:40:11Z","progress":40,"value":"10.0.0.7","content_type":"text/plain; charset=utf-8","slots":[0,2]}]}"#,
    );
    golden::<GroupMember>(
        r#"{"id":"w1","session":"7587d8aa00000001","since":"2026-11-22T05:40:11Z","value":{"cpu":4},"content_type":"application/json"}"#,
    );
    golden::<Joined>(
        r#"{"id":"w1","session":"7587d8aa00000001","valid_for":"15s","size":1,"view":41,"revision":41}"#,
    );
    golden::<Left>(r#"{"deleted":1,"size":0,"view":42,"revision":42}"#);
}

#[test]
fn services() {
    golden::<Registration>(r#"{"address":"10.0.0.7"}"#);
    golden::<Registration>(
        r#"{"address":"10.0.0.7","port":8080,"ports":{"admin":9000},"scheme":"http","version":"2","zone":"east","weight":0,"tags":["blue"],"meta":{"owner":"ann"},"status":"starting"}"#,
    );
    refused::<Registration>(r#"{"address":"a","prot":80}"#, "unknown field `prot`");
    refused::<Registration>(r#"{"address":"a","port":65536}"#, "invalid value");
    refused::<Registration>(r#"{"address":"a","status":"fine"}"#, "unknown variant `fine`");
    golden::<ServiceConfig>(
        r#"{"protect":0.5,"deregister_after":"1m","slow_start":"10s","eject_errors":2,"eject_for":"30s"}"#,
    );
    golden::<ServiceConfig>("{}");
    refused::<ServiceConfig>(r#"{"protect":1.5}"#, "a number from 0 to 1");
    let instance: Instance = golden(
        r#"{"id":"a","generation":41,"address":"::1","port":80,"weight":100,"status":"critical","load":0.25,"liveness":"ttl","session":"7587d8aa00000001","ttl":"15s","valid_for":"8s","registered":"2026-11-22T05:40:11Z","up_since":"2026-11-22T05:40:11Z","ejected_until":"2026-11-22T05:41:11Z","lost":"2026-11-22T05:42:11Z","leaves":"2026-11-22T05:43:11Z"}"#,
    );
    assert_eq!((instance.authority().as_str(), instance.is_healthy()), ("[::1]:80", false));
    golden::<Service>(r#"{"name":"web","instances":3,"healthy":2,"ejected":1,"config":{"protect":0}}"#);
    let plain = r#"{"id":"a","generation":41,"address":"h","weight":100,"status":"passing","liveness":"permanent","registered":"2026-11-22T05:40:11Z"}"#;
    golden::<ServiceInstances>(&format!(
        r#"{{"name":"web","healthy":1,"degraded":false,"items":[{plain}],"revision":41}}"#
    ));
    golden::<Picked>(&format!(r#"{{"items":[{plain}],"degraded":true,"revision":41}}"#));
    golden::<InstanceRenewed>(r#"{"valid_for":"15s","generation":41,"status":"passing"}"#);
    golden::<InstanceRenewed>(r#"{"generation":41,"status":"draining","leaves":"2026-11-22T05:43:11Z"}"#);
    golden::<PrometheusGroup>(r#"{"targets":["10.0.0.7:80"],"labels":{"__meta_coracle_service":"web"}}"#);
}

#[test]
fn queues() {
    use coracle_api::queue::*;
    golden::<QueueConfig>(r#"{"kind":"fifo","overflow":"reject","single_active":false,"paused":false}"#);
    golden::<QueueConfig>(
        r#"{"kind":"barrier","visibility":"1m","max_deliveries":0,"dead_letter":"lost","retry":{"min":"1s","max":"1m","factor":3},"retention":"336h","max_length":9,"overflow":"drop_oldest","dedup_window":"5m","single_active":true,"paused":true,"barrier":{"when":"any","size":10,"contains":["a","b"],"absent":["stop"],"signals":["go"],"deadline":"1h","on_deadline":"break","delivery":"self","strict":true,"finalizer":{"value":"report","content_type":"text/plain; charset=utf-8"},"on_break":"dead_letter","guard":"elections/control"}}"#,
    );
    let one: QueueConfig =
        serde_json::from_str(r#"{"kind":"barrier","barrier":{"absent":"stop","finalizer":{}}}"#).unwrap();
    let barrier = one.barrier.unwrap();
    assert_eq!(
        (barrier.absent, barrier.finalizer),
        (Names(vec!["stop".into()]), Some(Finalizer { value: None }))
    );
    refused::<QueueConfig>(r#"{"visiblity":"1m"}"#, "unknown field `visiblity`");
    refused::<QueueConfig>(r#"{"kind":"lifo"}"#, "unknown variant `lifo`");
    refused::<QueueConfig>(r#"{"barrier":{"size":-1}}"#, "invalid value");
    golden::<SendMany>(
        r#"{"items":[{"value":"a","content_type":"text/plain; charset=utf-8"},{"value":{"n":1},"content_type":"application/json","group":"g","priority":9,"delay":"5s","ttl":"1m","dedup_id":"7","id":"one","headers":{"trace":"x"}}]}"#,
    );
    refused::<SendMany>(r#"{"items":[{"value":"a","valu":1}]}"#, "unknown field `valu`");
    refused::<SendMany>(r#"{"items":[{}]}"#, "one of value and value_base64 is required");
    golden::<Sent>(r#"{"id":"812-0","revision":812}"#);
    golden::<Sent>(
        r#"{"id":"812-0","revision":812,"duplicate":true,"generation":3,"ordinal":0,"size":10,"receipt":"r1:812-0.830"}"#,
    );
    golden::<SentMany>(
        r#"{"items":[{"id":"812-0"},{"id":"812-0","duplicate":true,"generation":1}],"revision":812}"#,
    );
    golden::<Received>(r#"{"items":[],"revision":830}"#);
    golden::<Received>(
        r#"{"items":[{"id":"812-0","receipt":"r1:812-0.830","value":"hello","content_type":"text/plain; charset=utf-8","deliveries":1,"sent":"2026-11-22T05:40:11Z","priority":9,"group":"g","headers":{"trace":"x"},"until":"2026-11-22T05:40:41Z"}],"acks":[{"receipt":"r1:811-0.820","ok":true}],"session":"7587d8aa00000001","valid_for":"15s","revision":830}"#,
    );
    golden::<Message>(
        r#"{"id":"9-0","state":"in_flight","value":"x","content_type":"text/plain; charset=utf-8","deliveries":2,"sent":"2026-11-22T05:40:11Z","since":"2026-11-22T05:40:11Z","session":"7587d8aa00000001","reason":"io","dead":{"queue":"mail","id":"812-0","deliveries":5,"reason":"max_deliveries","sent":"2026-11-22T05:40:11Z"}}"#,
    );
    golden::<Message>(
        r#"{"id":"9-1","value":"","content_type":"text/plain; charset=utf-8","deliveries":1,"sent":"2026-11-22T05:40:11Z","name":"one","role":"batch","generation":3,"ordinal":0,"size":10,"items":[]}"#,
    );
    golden::<Receipts>(r#"{"receipts":["r1:812-0.830"]}"#);
    golden::<SettledMany>(
        r#"{"items":[{"receipt":"r1:812-0.830","ok":false}],"visibility":"30s","revision":831}"#,
    );
    golden::<Count>(r#"{"count":3,"revision":831}"#);
    golden::<Controlled>(r#"{"paused":false,"revision":831}"#);
    golden::<Controlled>(r#"{"paused":false,"generation":3,"released":true,"count":10,"revision":831}"#);
    golden::<Consuming>(r#"{"consumer":"7587d8aa00000001","valid_for":"15s","revision":831}"#);
    golden::<Queue>(
        r#"{"name":"gather","config":{"kind":"fifo","overflow":"reject","single_active":false,"paused":false},"configured":true,"length":4,"ready":1,"blocked":1,"delayed":1,"in_flight":1,"held":0,"dead":0,"dead_letter":"gather.dead","bytes":20,"waiting":1,"oldest":"2026-11-22T05:40:11Z","oldest_age":"5s","consumer":"7587d8aa00000001","consumers":[{"session":"7587d8aa00000001","since":"2026-11-22T05:40:11Z","max":1}],"filling":{"generation":4,"items":7,"progress":"7/10","missing":["b"],"signalled":["go"],"since":"2026-11-22T05:40:11Z","age":"5s","deadline":"2026-11-22T06:40:11Z","broken":"deadline"},"draining":{"generation":3,"size":10,"left":4,"acked":5,"dead":1,"dropped":0,"cause":"condition","released":"2026-11-22T05:40:11Z","revision":830,"finalizing":true},"generations_waiting":2}"#,
    );
}

#[test]
fn txn() {
    let txn: Txn = golden(
        r#"{"if":[{"key":"stock/7","value":"3"},{"key":"order/1","exists":false},{"key_base64":"/w==","mod_revision":9},{"key":"a","create_revision":0},{"key":"a","version":2},{"held":"locks/deploy","token":811},{"session":"7587d8aa00000001"}],"then":[{"op":"put","key":"order/1","value":"paid","content_type":"text/plain; charset=utf-8"},{"op":"put","key":"b","value_base64":"/w==","content_type":"application/octet-stream","session":"7587d8aa00000001","keep_session":true},{"op":"delete","key":"c"},{"op":"delete","prefix":"tmp/"},{"op":"release","lock":"deploy","session":"7587d8aa00000001"},{"op":"release","semaphore":"pool","session":"7587d8aa00000001"},{"op":"release","election":"cron","session":"7587d8aa00000001","token":811}],"else":[{"op":"get","key":"stock/7"}]}"#,
    );
    assert_eq!(txn.compares.len(), 7);
    golden::<Compare>(r#"{"key":"a","version":3,"is":"greater"}"#);
    refused::<Compare>(r#"{"key":"a","exists":true,"is":"greater"}"#, "exists does not take is");
    refused::<Compare>(r#"{"held":"locks/a","token":1,"is":"greater"}"#, "a compare is");
    refused::<Compare>(r#"{"key":"a","version":3,"is":"above"}"#, "unknown variant `above`");
    assert_eq!(
        serde_json::from_str::<Txn>(r#"{"then":[{"op":"put","key":"a","value":[1, 2]}]}"#).unwrap().then,
        [Operation::Put {
            key: "a".into(),
            value: Value::new("[1, 2]", "application/json"),
            session: None,
            keep_session: false
        }]
    );
    for (body, why) in [
        (r#"{"than":[]}"#, "unknown field `than`"),
        (r#"{"if":[{"key":"a"}]}"#, "exactly one of"),
        (r#"{"if":[{"key":"a","version":1,"exists":true}]}"#, "exactly one of"),
        (r#"{"if":[{"held":"locks/a"}]}"#, "{held, token}"),
        (r#"{"if":[{"key":"a","held":"locks/a","token":1,"version":1}]}"#, "a compare is"),
        (r#"{"if":[{"key":"a","revision":1}]}"#, "unknown field `revision`"),
        (r#"{"if":[{"key":"a","version":-1}]}"#, "invalid value"),
        (r#"{"then":[{"key":"a"}]}"#, "op is missing"),
        (r#"{"then":[{"op":"sent","key":"a"}]}"#, "op is not one of"),
        (r#"{"then":[{"op":"send","key":"a"}]}"#, "send does not take key"),
        (r#"{"then":[{"op":"send","queue":"a"}]}"#, "one of value and value_base64 is required"),
        (r#"{"then":[{"op":"ack","queue":"a"}]}"#, "ack needs receipt"),
        (r#"{"then":[{"op":"add","counter":"a","delta":"1"}]}"#, "invalid type"),
        (r#"{"if":[{"counter":"a","value":"1"}]}"#, "value is a whole number"),
        (r#"{"if":[{"counter":"a","value":1,"key":"b"}]}"#, "takes counter, value and is"),
        (r#"{"then":[{"op":"get"}]}"#, "get needs key"),
        (r#"{"then":[{"op":"get","key":"a","value":"1"}]}"#, "get does not take value"),
        (r#"{"then":[{"op":"put","key":"a"}]}"#, "one of value and value_base64 is required"),
        (r#"{"then":[{"op":"put","key":"a","value":"1","value_base64":"MQ=="}]}"#, "exclude each other"),
        (r#"{"then":[{"op":"put","key":"a","key_base64":"YQ==","value":"1"}]}"#, "exclude each other"),
        (r#"{"then":[{"op":"delete","key":"a","prefix":"a"}]}"#, "key or prefix"),
        (r#"{"then":[{"op":"release","lock":"a"}]}"#, "release needs session"),
        (
            r#"{"then":[{"op":"release","session":"7587d8aa00000001"}]}"#,
            "release needs one of lock, semaphore, election",
        ),
        (r#"{"then":[{"op":"get","key":"a"}],"then":[]}"#, "duplicate field"),
    ] {
        refused::<Txn>(body, why);
    }
    let result: TxnResult = golden(
        r#"{"succeeded":true,"revision":9,"results":[{"op":"get","entry":{"key":"a","value":"1","content_type":"text/plain; charset=utf-8","create_revision":1,"mod_revision":1,"version":1}},{"op":"get","entry":null},{"op":"put","version":1},{"op":"delete","deleted":2},{"op":"release"},{"op":"add","value":-2,"previous":0},{"op":"send","id":"812-0"},{"op":"publish","seq":7},{"op":"ack"},{"op":"sent"}]}"#,
    );
    assert_eq!(result.results[1], OperationResult::Get { entry: None });
    assert_eq!(result.results[9], OperationResult::Other { op: "sent".into() });
    golden::<Txn>(
        r#"{"if":[{"value":3,"is":"less","counter":"sold"}],"then":[{"op":"add","counter":"sold","delta":1,"max":9},{"op":"send","value":"x","content_type":"text/plain; charset=utf-8","queue":"ship","group":"g","priority":9,"delay":"5s","ttl":"1m","dedup_id":"7"},{"op":"publish","value":{"a":1},"content_type":"application/json","topic":"t","message_key":"k"},{"op":"ack","queue":"in","receipt":"r1:812-0.830"}],"else":[]}"#,
    );
}

#[test]
fn sessions() {
    golden::<SessionCreate>("{}");
    golden::<SessionCreate>(
        r#"{"ttl":"15s","name":"worker-3","meta":{"zone":"a"},"on_expire":"delete","lock_delay":"5s","stall_after":"1m"}"#,
    );
    refused::<SessionCreate>(r#"{"tll":"15s"}"#, "unknown field `tll`");
    golden::<SessionCreated>(r#"{"id":"7587d8aa00000001","ttl":"15s","valid_for":"14.9s","revision":8}"#);
    golden::<SessionRenew>(r#"{"progress":{"percent":40,"note":"half"},"meta":{}}"#);
    golden::<SessionRenewed>(
        r#"{"valid_for":"15s","holds":[{"family":"locks","name":"deploy","token":811,"mode":"exclusive"}],"stalled":true,"lost":[{"family":"locks","name":"x","token":7,"reason":"broken","revision":12},{"family":"groups","name":"crew","item":"w1","reason":"removed","revision":13}],"lost_after":9,"revision":14}"#,
    );
    golden::<Session>(
        r#"{"id":"7587d8aa00000001","name":"worker-3","state":"suspect","ttl":"15s","valid_for":"4s","on_expire":"release","lock_delay":"5s","stall_after":"1m","stalled_since":"2026-11-22T05:41:11Z","meta":{"zone":"a"},"progress":{"percent":40},"created":"2026-11-22T05:40:11Z","create_revision":8,"holds":[],"waits":[{"family":"locks","name":"y","position":2}],"items":[{"family":"groups","name":"crew","item":"w1","state":"joined"}],"keys":["a"]}"#,
    );
    golden::<SessionClosed>(r#"{"released":[{"family":"locks","name":"x","token":7}],"revision":9}"#);
}

#[test]
fn locks() {
    golden::<Acquired>(
        r#"{"session":"7587d8aa00000001","token":811,"valid_for":"30s","mode":"exclusive","ordinal":4}"#,
    );
    golden::<Waiting>(
        r#"{"session":"7587d8aa00000001","position":3,"valid_for":"30s","blockers":[{"session":"7587d8aa00000002","owner":"ci-7","token":811,"since":"2026-11-22T05:40:11Z","valid_for":"8.4s","mode":"shared"}]}"#,
    );
    golden::<Lock>(
        r#"{"name":"deploy","holders":[{"session":"7587d8aa00000001","owner":"ci-7","token":811,"mode":"exclusive","since":"2026-11-22T05:40:11Z","valid_for":"8.4s","count":1,"ordinal":4}],"waiters":[{"session":"7587d8aa00000002","mode":"shared","since":"2026-11-22T05:40:12Z","position":1}],"config":{"lock_delay":"5s"}}"#,
    );
    golden::<Released>(r#"{"released_to":["7587d8aa00000002"],"revision":812}"#);
    golden::<Renewed>(r#"{"valid_for":"30s","token":811}"#);
    golden::<Broken>(
        r#"{"broken":[{"session":"7587d8aa00000001","token":811,"mode":"exclusive","since":"2026-11-22T05:40:11Z","count":1}],"revision":813}"#,
    );
    golden::<AcquireMany>(r#"{"items":[{"name":"a","mode":"exclusive"},{"name":"b","mode":"shared"}]}"#);
    golden::<AcquiredMany>(
        r#"{"session":"7587d8aa00000001","valid_for":"30s","items":[{"name":"a","token":811,"mode":"shared"}]}"#,
    );
    golden::<PermitsAcquired>(r#"{"session":"7587d8aa00000001","token":811,"valid_for":"30s","permits":3}"#);
    golden::<Semaphore>(
        r#"{"name":"pool","limit":5,"free":2,"holders":[{"session":"7587d8aa00000001","owner":"ci-7","token":811,"permits":3,"since":"2026-11-22T05:40:11Z","valid_for":"8.4s"}],"waiters":[{"session":"7587d8aa00000002","permits":4,"since":"2026-11-22T05:40:12Z","position":1}],"waiting":7}"#,
    );
    golden::<SemaphoreConfig>(r#"{"limit":5}"#);
    golden::<Elected>(r#"{"leader":"7587d8aa00000001","token":811,"valid_for":"30s"}"#);
    golden::<Resigned>(r#"{"leader":null,"revision":842}"#);
    golden::<Election>(
        r#"{"name":"cron","leader":{"session":"7587d8aa00000001","owner":"ci-7","token":811,"since":"2026-11-22T05:40:11Z","priority":9,"ordinal":2,"valid_for":"8.4s","value":"10.0.0.7:80","content_type":"text/plain; charset=utf-8"},"candidates":[{"session":"7587d8aa00000002","priority":0,"since":"2026-11-22T05:40:12Z","position":1}]}"#,
    );
    golden::<Election>(r#"{"name":"cron","leader":null,"candidates":[]}"#);
    golden::<LockConfig>(r#"{"lock_delay":"5s","max_hold":"1h","min_hold":"0s"}"#);
    refused::<LockConfig>(r#"{"max":"1h"}"#, "unknown field `max`");
}

#[test]
fn cluster_and_limits() {
    golden::<Cluster>(
        r#"{"cluster_id":"c0ffee","member_id":"1","name":"n1","role":"voter","leader":"1","term":3,"revision":842,"compact_revision":0,"committed_index":900,"applied_index":900,"epoch":1,"feature_level":1,"version":"0.1.0","state_hash":"00ff"}"#,
    );
    golden::<Member>(
        r#"{"id":"1","name":"n1","peer":"127.0.0.1:7071","client_url":"http://127.0.0.1:7070","role":"voter","leader":true,"state":"up","matched_index":900}"#,
    );
    golden::<MemberAdd>(r#"{"name":"n4","peer":"127.0.0.1:7371","client_url":"http://127.0.0.1:7370"}"#);
    refused::<MemberAdd>(r#"{"name":"n4","peer":"a:1","client_url":"u","x":1}"#, "unknown field `x`");
    golden::<MemberAdded>(r#"{"id":"104","cluster_id":"c0ffee","members":[]}"#);
    golden::<StateHash>(r#"{"revision":9,"hash":"00ff","member_id":"1","diverged":false}"#);
    golden::<HistoryCompacted>(r#"{"compact_revision":7,"revision":9}"#);
    golden::<Version>(r#"{"version":"0.1.0","api":"v1"}"#);
    golden::<Limits>(
        r#"{"key_bytes_max":512,"value_bytes_max":262144,"metadata_bytes_max":4096,"body_bytes_max":1048576,"transaction_operations_max":128,"list_items_default":100,"list_items_max":1000,"wait_max":"10m","session_ttl_min":"1s","session_ttl_default":"15s","session_ttl_max":"24h","holds_per_session_max":1000,"waiters_per_object_max":10000,"waiting_requests_max":10000,"instances_per_service_max":20000,"pick_instances_max":100,"send_messages_max":1000,"receive_messages_max":100,"receive_bytes_max":1048576,"message_headers_max":32,"publish_messages_max":1000,"publish_bytes_max":1048576,"messages_per_key_max":100,"subscriptions_per_topic_max":1000,"deliveries_in_flight_max":10000,"generation_items_max":100000,"generation_ids_max":1000,"parties_per_barrier_max":10000,"count_per_latch_max":1000000000,"declared_members_max":1000,"members_per_group_max":10000,"slots_per_group_max":1000,"locks_together_max":32,"lock_delay_max":"1m","semaphore_permits_max":1000000,"election_value_bytes_max":65536,"idempotency_key_bytes_max":255,"idempotency_retention":"1h","streams_max":10000,"quota_bytes":2147483648}"#,
    );
}

#[test]
fn frames() {
    golden::<Frame>(
        r#"{"type":"snapshot","revision":42,"items":[{"key":"a","create_revision":1,"mod_revision":1,"version":1}],"more":true}"#,
    );
    golden::<Frame<Lock>>(
        r#"{"type":"snapshot","revision":42,"items":[{"name":"a","holders":[],"waiters":[]}]}"#,
    );
    golden::<Frame>(r#"{"type":"synced","revision":42}"#);
    golden::<Frame>(
        r#"{"type":"change","revision":43,"time":"2026-11-22T05:40:11.25Z","events":[{"family":"kv","op":"put","key":"app/color","value":"red","content_type":"text/plain; charset=utf-8","version":2,"previous_revision":41},{"family":"kv","op":"put","key":"new","value_base64":"AA==","content_type":"application/octet-stream","version":1,"create":true},{"family":"kv","op":"delete","key_base64":"/w==","previous_revision":7,"cause":"session_expired"},{"family":"locks","op":"acquire","name":"deploy","session":"7587d8aa00000001","token":43,"mode":"exclusive","owner":"ci-7"}]}"#,
    );
    golden::<Frame>(r#"{"type":"progress","revision":50}"#);
    golden::<Frame>(r#"{"type":"gap","from":3,"to":40}"#);
    golden::<Frame>(r#"{"type":"lagged","revision":40}"#);
    golden::<Frame>(r#"{"type":"bye","revision":40,"reason":"shutdown"}"#);
    let error: Frame = golden(
        r#"{"type":"error","problem":{"type":"/problems/compacted","title":"The revision is compacted","status":410,"code":"compacted","retry":"after_reread","effect":"none","detail":"compact_revision=40","compact_revision":40}}"#,
    );
    assert_eq!(error.resume_after(), None);
    let other: Frame = serde_json::from_str(r#"{"type":"of_the_future","x":1}"#).unwrap();
    assert_eq!(other, Frame::Other { kind: "of_the_future".into() });
}

#[test]
fn hold_frames() {
    golden::<HoldFrame>(r#"{"type":"opened","session":"7587d8aa00000001","ttl":"15s","valid_for":"15s"}"#);
    golden::<HoldFrame>(r#"{"type":"waiting","position":2}"#);
    golden::<HoldFrame>(
        r#"{"type":"acquired","session":"7587d8aa00000001","token":811,"valid_for":"15s","mode":"shared"}"#,
    );
    golden::<HoldFrame>(r#"{"type":"held","valid_for":"15s"}"#);
    golden::<HoldFrame>(r#"{"type":"lost","reason":"session_expired"}"#);
    golden::<HoldFrame>(
        r#"{"type":"taken","family":"locks","name":"x","token":7,"reason":"broken","revision":12}"#,
    );
    golden::<HoldFrame>(r#"{"type":"bye","reason":"shutdown"}"#);
    let other: HoldFrame = serde_json::from_str(r#"{"type":"of_the_future","x":1}"#).unwrap();
    assert_eq!(other, HoldFrame::Other);
}
