//! Joining a running cluster: one request to any of its nodes, before this node starts.

use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, header};
use coracle_api::{MemberAdd, MemberAdded, Problem};
use coracle_raft::network::tls::Connector;
use coracle_raft::node::Start;
use coracle_raft::types::Member;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::Config;

/// How long the cluster may take to admit this node.
const PATIENCE: Duration = Duration::from_mins(1);
const ANSWER_BYTES: usize = 1024 * 1024;

/// Ask the cluster at `url` to admit `member` as a learner.
///
/// # Errors
/// Why it did not, for people.
pub async fn admit(url: &str, member: &Member, config: &Config) -> Result<Start, String> {
    let add =
        MemberAdd { name: member.name.clone(), peer: member.peer.clone(), client_url: member.client.clone() };
    let body = serde_json::to_vec(&add).map_err(|e| e.to_string())?;
    let answer =
        tokio::time::timeout(PATIENCE, post(url, body, config)).await.map_err(|_| "no answer in time")??;
    let id = answer.id.parse().map_err(|_| format!("not a member id: {:?}", answer.id))?;
    let cluster = u128::from_str_radix(&answer.cluster_id, 16)
        .map_err(|_| format!("not a cluster id: {:?}", answer.cluster_id))?;
    let known = |m: coracle_api::Member| {
        let id = m.id.parse().map_err(|_| format!("not a member id: {:?}", m.id))?;
        Ok((id, Member { name: m.name, peer: m.peer, client: m.client_url }))
    };
    let members = answer.members.into_iter().map(known).collect::<Result<_, String>>()?;
    Ok(Start::Join { id, cluster, members })
}

async fn post(url: &str, body: Vec<u8>, config: &Config) -> Result<MemberAdded, String> {
    let (secure, rest) = match url.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        _ => return Err("the URL must begin with http:// or https://".to_owned()),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port {
        authority.to_owned()
    } else {
        format!("{authority}:{}", if secure { 443 } else { 80 })
    };
    let connector = if secure {
        let Some(tls) = crate::start::join_tls(config)? else {
            return Err(
                "https needs tls_client_ca, tls_cert and tls_key of the cluster's client port".to_owned()
            );
        };
        Connector::tls(tls)
    } else {
        Connector::plain()
    };
    let tcp = TcpStream::connect(&address).await.map_err(|e| e.to_string())?;
    let stream = connector.connect(&address, tcp).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let request = Request::post("/v1/members")
        .header(header::HOST, authority)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(bytes::Bytes::from(body)))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES)
        .collect()
        .await
        .map_err(|e| e.to_string())?
        .to_bytes();
    connection.abort();
    if status == 201 {
        serde_json::from_slice(&body).map_err(|e| format!("not the answer of a Coracle node: {e}"))
    } else {
        Err(Problem::parse(status, &body).to_string())
    }
}

/// So that the type is named once.
pub type ClientConfig = Arc<rustls::ClientConfig>;
