//! The services, as those see them who break them.

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The gateway.
    Store,
    /// Orders and their sagas.
    Order,
    /// Items and how many there are.
    Warehouse,
    /// Warranties.
    Warranty,
}

impl Part {
    /// All four, in the order of [`Databases`].
    pub const ALL: [Self; 4] = [Self::Store, Self::Order, Self::Warehouse, Self::Warranty];

    /// Those that have deferred calls.
    pub const LEDGERS: [Self; 2] = [Self::Store, Self::Order];

    /// As it is called everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Order => "order",
            Self::Warehouse => "warehouse",
            Self::Warranty => "warranty",
        }
    }

    /// Whether it calls the other one.
    pub fn calls(self, other: Self) -> bool {
        self.dependencies().contains(&other)
    }

    /// Whether what it can't do at once is a deferred call.
    pub fn defers(self) -> bool {
        Self::LEDGERS.contains(&self)
    }

    /// What it calls.
    pub fn dependencies(self) -> &'static [Self] {
        match self {
            Self::Store => &[Self::Order, Self::Warehouse, Self::Warranty],
            Self::Order => &[Self::Warehouse, Self::Warranty],
            Self::Warehouse => &[Self::Warranty],
            Self::Warranty => &[],
        }
    }
}

/// The addresses of their databases, by [`Part`].
pub type Databases = [String; 4];
