//! `kv edit`: a value through an editor and back.

use std::ffi::OsString;

use coracle_client::api::Value;

use crate::bytes_arg::bytes;
use crate::connection::Connection;
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
pub struct Edit {
    /// Created if it does not exist
    key: OsString,
}

pub async fn run(connection: &Connection, args: Edit) -> Result<(), Failure> {
    let kv = connection.client_for_many_calls()?.kv();
    let key = bytes(&args.key);
    let before = kv.get(key).await?;
    let old = before.as_ref().and_then(|entry| entry.value.clone());
    let old_bytes = old.as_ref().map(|value| value.bytes.clone()).unwrap_or_default();

    let file = tempfile::Builder::new().prefix("coracle-").tempfile()?;
    std::fs::write(file.path(), &old_bytes)?;
    let editor = ["VISUAL", "EDITOR"].iter().find_map(std::env::var_os).unwrap_or_else(|| "vi".into());
    // Through a shell: people put arguments into EDITOR.
    let status = tokio::process::Command::new("sh")
        .arg("-c")
        .arg("exec $CORACLE_EDITOR \"$1\"")
        .arg("sh")
        .arg(file.path())
        .env("CORACLE_EDITOR", editor)
        .status()
        .await?;
    if !status.success() {
        return Err(Failure::Other(format!("the editor failed, nothing is changed status={status}")));
    }
    let new = std::fs::read(file.path())?;
    if before.is_some() && new == old_bytes {
        eprintln!("coracle: unchanged");
        return Ok(());
    }
    let value = match old {
        Some(old) => Value::new(new, old.content_type),
        None => Value::from(new),
    };
    let put = match &before {
        Some(entry) => kv.put(key, value).if_match(entry.mod_revision).keep_session(),
        None => kv.put(key, value).if_absent(),
    };
    match put.await {
        Ok(done) => {
            let fields = [("revision", done.revision.to_string()), ("version", done.version.to_string())];
            connection.output().item(&done, &fields)
        }
        Err(error) => {
            let kept = file.into_temp_path().keep().map_err(|error| Failure::Other(error.to_string()))?;
            eprintln!("coracle: your text is kept in {}", kept.display());
            Err(error.into())
        }
    }
}
