//! `txn`: a transaction from a file or from standard input.

use std::io::Read;
use std::path::PathBuf;

use coracle_client::api::{self, OperationResult};

use crate::connection::Connection;
use crate::exit::{Failure, REFUSED};

/// Compares, then one of two lists of operations, all in one step
#[derive(Debug, clap::Args)]
#[command(after_help = r#"Example:
  coracle txn <<'END'
  {"if":   [{"key":"stock/7","value":"3"}, {"key":"order/1","exists":false}],
   "then": [{"op":"put","key":"order/1","value":"paid"}, {"op":"put","key":"stock/7","value":"2"}],
   "else": [{"op":"get","key":"stock/7"}]}
  END

The exit code is 4 if a compare did not hold; the results are those of "else" then."#)]
pub struct Txn {
    /// The transaction as JSON; standard input if absent
    file: Option<PathBuf>,
}

pub async fn run(connection: &Connection, args: Txn) -> Result<(), Failure> {
    let text = if let Some(file) = &args.file {
        std::fs::read_to_string(file)
            .map_err(|error| Failure::Other(format!("{error} file={}", file.display())))?
    } else {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text)?;
        text
    };
    let txn: api::Txn =
        serde_json::from_str(&text).map_err(|error| Failure::Usage(format!("not a transaction: {error}")))?;
    let result = connection.client()?.txn().whole(txn).await?;
    let mut fields =
        vec![("succeeded", result.succeeded.to_string()), ("revision", result.revision.to_string())];
    fields.extend(result.results.iter().map(|result| ("result", describe(result))));
    connection.output().item(&result, &fields)?;
    if result.succeeded { Ok(()) } else { Err(Failure::Exit(REFUSED)) }
}

fn describe(result: &OperationResult) -> String {
    match result {
        OperationResult::Get { entry: None } => "get: not found".to_owned(),
        OperationResult::Get { entry: Some(entry) } => {
            let value = entry.value.as_ref().map(|value| crate::kv_list::short(&value.bytes));
            format!("get: {}", value.unwrap_or_default())
        }
        OperationResult::Put { version } => format!("put: version {version}"),
        OperationResult::Delete { deleted } => format!("delete: {deleted}"),
        OperationResult::Release => "release".to_owned(),
        OperationResult::Add { value, previous } => format!("add: {value}, was {previous}"),
        OperationResult::Send { id } => format!("send: {id}"),
        OperationResult::Publish { seq } => format!("publish: seq {seq}"),
        OperationResult::Ack => "ack".to_owned(),
        OperationResult::Other { op } => op.clone(),
    }
}
