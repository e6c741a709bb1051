//! A complete replacement of the checkpoint that has not taken its place yet.

use std::sync::Arc;

use coracle_store::checkpoint::Table;

use super::database::{Database, Rows};
use super::{Checkpoint, Error, Live, Position, adopt, lock, pointer};

/// Rows of a snapshot in a database file of their own, durable but not live. Dropping it removes the file;
/// [`Self::commit`] puts it in place of the old one. In between the caller can check what it built from the rows.
pub struct Staged<'a> {
    checkpoint: &'a Checkpoint,
    number: pointer::Number,
    database: Option<Database>,
    position: Position,
}

impl Checkpoint {
    /// Build a new database file from rows in order, showing each row to `each` on its way.
    pub(crate) fn stage(
        &self,
        rows: &mut impl Rows,
        position: Position,
        each: impl FnMut(Table, &[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<Staged<'_>, Error> {
        self.forwards(&position)?;
        let number = self.take_number();
        let mut staged = Staged { checkpoint: self, number, database: None, position };
        let database =
            Database::create(pointer::new_state_file(&self.dir, number), self.options, &*self.storage)?;
        let database = staged.database.insert(database);
        database.fill(rows, &staged.position, each)?;
        Ok(staged)
    }
}

impl Staged<'_> {
    /// Where the rows stand.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Make these rows the checkpoint, durably, and delete the old file. Waits for a write that is under way.
    ///
    /// # Errors
    /// [`Error::Backwards`] if a later position has become durable since; [`Error::Full`], [`Error::Io`].
    pub fn commit(mut self) -> Result<Position, Error> {
        let checkpoint = self.checkpoint;
        let _writing = lock(&checkpoint.writing);
        checkpoint.forwards(&self.position)?;
        let Some(database) = self.database.take() else { return Err(Error::Stopped) };
        let database = adopt(&checkpoint.dir, database, self.number)?;
        let position = self.position.clone();
        let live =
            Live { number: self.number, database: Some(Arc::new(database)), position: position.clone() };
        let old = std::mem::replace(&mut *lock(&checkpoint.live), live);
        // Readers of the old file keep it open; its name can go. If it cannot, the next start removes it.
        let _ = std::fs::remove_file(pointer::state_file(&checkpoint.dir, old.number));
        Ok(position)
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        drop(self.database.take());
        let _ = std::fs::remove_file(pointer::new_state_file(&self.checkpoint.dir, self.number));
    }
}
