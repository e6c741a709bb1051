//! A claim as its claimant sees it: granted, in line, or gone.

/// Is it my turn yet? `G` is what a grant is, `P` a place in the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn<G, P> {
    Granted(G),
    Waiting(P),
    /// Neither granted nor in line: given back, broken, expired, or never asked.
    Gone,
}
