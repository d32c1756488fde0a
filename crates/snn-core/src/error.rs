//! Everything that can go wrong in `snn-core` and in the backends that implement its traits.

/// The result of a fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation was given something that it cannot work with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An array argument has the wrong size or shape.
    #[error("{op}: `{arg}` has shape {got:?}, expected {want}")]
    Shape {
        /// The operation, `module::function`.
        op: &'static str,
        /// The argument at fault.
        arg: &'static str,
        /// Its shape.
        got: Vec<usize>,
        /// The shape that would be right.
        want: String,
    },
    /// A scalar parameter lies outside its documented range.
    #[error("{op}: {param} = {value} is outside {range}")]
    Domain {
        /// The operation, `module::function`.
        op: &'static str,
        /// The parameter at fault.
        param: &'static str,
        /// Its value.
        value: f64,
        /// The allowed range.
        range: &'static str,
    },
    /// A name that is none of the known ones.
    #[error("unknown {what} `{got}`; it is one of {known}")]
    Name {
        /// What the name should be of.
        what: &'static str,
        /// The name.
        got: String,
        /// The names that there are.
        known: String,
    },
    /// A unit index lies outside the layer that it addresses.
    #[error("{op}: unit {unit} is out of range, the signal has {width} units")]
    Unit {
        /// The operation, `module::function`.
        op: &'static str,
        /// The index found.
        unit: u32,
        /// How many units there are.
        width: usize,
    },
    /// An entry of an array that it must not hold.
    #[error("{op}: `{arg}[{index}]` is {value}, expected {want}")]
    Entry {
        /// The operation, `module::function`.
        op: &'static str,
        /// The array at fault.
        arg: &'static str,
        /// The first such entry.
        index: usize,
        /// Its value.
        value: f64,
        /// What would be right.
        want: &'static str,
    },
    /// A layer was given a kind of activity that it does not take.
    #[error("{layer} takes {want}, but is given {got}")]
    Kind {
        /// The layer.
        layer: String,
        /// What it was given.
        got: String,
        /// What it takes.
        want: String,
    },
    /// The device failed or has no memory left.
    #[error("{device}: {reason}")]
    Device {
        /// The device.
        device: String,
        /// What happened.
        reason: String,
    },
    /// A golden file or its index cannot be used (feature `testkit`).
    #[error("{place}: {reason}")]
    Golden {
        /// The file and the array in it.
        place: String,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// A [`Error::Shape`]; `want` is written out only when the error occurs.
    pub fn shape(op: &'static str, arg: &'static str, got: &[usize], want: impl std::fmt::Display) -> Self {
        Self::Shape { op, arg, got: got.to_vec(), want: want.to_string() }
    }
}

/// Checks that a flat buffer holds exactly `want` entries.
///
/// # Errors
///
/// [`Error::Shape`] if it does not.
pub fn check_len(op: &'static str, arg: &'static str, got: usize, want: usize) -> Result<()> {
    if got == want { Ok(()) } else { Err(Error::shape(op, arg, &[got], format_args!("[{want}]"))) }
}
