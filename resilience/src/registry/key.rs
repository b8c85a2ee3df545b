use std::fmt;
use std::sync::Arc;

/// Names a dependency and a class of calls to it, as `billing` or `billing/write`.
///
/// Calls share a breaker when they share their fate: reads and writes with different timeouts, or a
/// report that takes ten seconds, are classes of their own.
///
/// ```
/// use resilience::registry::Key;
///
/// let key = Key::new("billing").class("write");
/// assert_eq!(key, Key::from("billing/write"));
/// assert_eq!((key.dependency(), key.operation_class()), ("billing", Some("write")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// All calls to this dependency, whose name ends at its first slash if it has one.
    pub fn new(dependency: impl AsRef<str>) -> Self {
        Self(dependency.as_ref().into())
    }

    /// The calls of this class to the same dependency.
    #[must_use]
    pub fn class(&self, class: &str) -> Self {
        Self(format!("{}/{class}", self.dependency()).into())
    }

    /// The dependency alone.
    pub fn dependency(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(dependency, _)| dependency)
    }

    /// The class of calls, where there is one.
    pub fn operation_class(&self) -> Option<&str> {
        self.0.split_once('/').map(|(_, class)| class)
    }

    /// Both, as they are written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(key: &str) -> Self {
        Self::new(key)
    }
}

impl From<String> for Key {
    fn from(key: String) -> Self {
        Self::new(key)
    }
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
