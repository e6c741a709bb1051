//! Pages of lists.

use serde::{Deserialize, Serialize};

/// One page of a list, at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "{T}Page"))]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Opaque; `null` on the last page. It pins the revision of the first page.
    #[serde(default = "none")]
    pub next_cursor: Option<String>,
    /// The revision that all pages of this list show.
    pub revision: u64,
}

// `#[serde(default)]` alone would ask for `T: Default`.
fn none() -> Option<String> {
    None
}
