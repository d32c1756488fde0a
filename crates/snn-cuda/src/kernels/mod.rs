//! The kernels: CUDA C++, one file for each family, compiled when first used and kept on disk.

pub(crate) mod cache;

/// A file of kernels.
#[derive(Debug)]
pub struct Source {
    /// Its name, without the ending.
    pub name: &'static str,
    /// What is in it.
    pub body: &'static str,
}

/// What every file begins with.
const PRELUDE: &str = include_str!("prelude.cu");

macro_rules! sources {
    ($($constant:ident = $name:literal),* $(,)?) => {
        $(pub(crate) static $constant: Source = Source { name: $name, body: include_str!(concat!($name, ".cu")) };)*

        /// All files.
        pub static ALL: &[&Source] = &[$(&$constant),*];
    };
}

sources! {
    SPIKES = "spikes",
    SPARSE = "sparse",
    LINALG = "linalg",
    CONV = "conv",
    POOL = "pool",
    NORM = "norm",
    LOSSES = "losses",
    OPTIMISE = "optimise",
    DELAYS = "delays",
    FIT = "fit",
    LIF = "lif",
    BLOCK = "block",
    PARALIF = "paralif",
    CUBA = "cuba",
    ALIF = "alif",
    EVENT = "event",
    TTFS = "ttfs",
}

impl Source {
    /// What the compiler gets.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{PRELUDE}\n#line 1 \"{}.cu\"\n{}", self.name, self.body)
    }

    /// The names of the kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &'static str> {
        self.heads().filter_map(|head| Some(head.split_once('(')?.0))
    }

    /// The types of a kernel's parameters, as they are written; nothing if there is no such kernel.
    pub(crate) fn parameters(&self, kernel: &str) -> Option<Vec<&'static str>> {
        let after =
            self.heads().filter_map(|head| head.strip_prefix(kernel)).find_map(|rest| rest.strip_prefix('('))?;
        let list = &after[..after.find(')')?];
        // A parameter is a type and a name.
        let of = |parameter: &'static str| {
            parameter.trim().rsplit_once(char::is_whitespace).map_or(parameter, |(of, _)| of.trim())
        };
        Some(list.split(',').filter(|parameter| !parameter.trim().is_empty()).map(of).collect())
    }

    /// What follows the word that begins a kernel.
    fn heads(&self) -> impl Iterator<Item = &'static str> {
        let lines =
            self.body.match_indices("KERNEL ").map(|(at, word)| (&self.body[..at], &self.body[at + word.len()..]));
        lines.filter_map(|(before, rest)| {
            let before = before.strip_suffix("BLOCK_").unwrap_or(before);
            (before.is_empty() || before.ends_with('\n')).then_some(rest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_by_their_heads() {
        let body = "KERNEL one(In<float> x, i64 n) {}\n// a KERNEL of none\nBLOCK_KERNEL two(Out<u32>\n  y) {}";
        let source = Source { name: "test", body };
        assert_eq!(source.kernels().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(source.parameters("one").unwrap(), ["In<float>", "i64"]);
        assert_eq!(source.parameters("two").unwrap(), ["Out<u32>"]);
        assert_eq!(source.parameters("tw"), None);
    }
}
