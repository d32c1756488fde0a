//! How long work reports where it stands; the command line draws it.

/// Receives the progress of a download or a conversion.
pub trait Progress {
    /// A piece of work begins; `total` is its size in bytes or samples where that is known.
    fn start(&mut self, what: &str, total: Option<u64>);
    /// So much more is done.
    fn advance(&mut self, amount: u64);
    /// The piece of work that was started last is complete.
    fn finish(&mut self);
    /// Something worth a line that is not an error, such as a file that was skipped.
    fn note(&mut self, _message: &str) {}
}

/// Reports to nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&mut self, _what: &str, _total: Option<u64>) {}
    fn advance(&mut self, _amount: u64) {}
    fn finish(&mut self) {}
}
