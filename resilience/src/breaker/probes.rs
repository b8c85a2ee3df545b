//! The places for probes while half-open.

/// Who probes, and for how long at the most. Times are nanoseconds since the breaker was built.
pub(super) struct Probes {
    pub(super) places: usize,
    pub(super) lease: u64,
    /// In the order in which their leases end.
    under_way: Vec<Probe>,
    last: u64,
}

struct Probe {
    id: u64,
    lease_end: u64,
}

impl Probes {
    pub(super) fn new() -> Self {
        Self { places: 1, lease: 0, under_way: Vec::new(), last: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// When a place is free at the latest: when the leases of those that have to make way for it
    /// have ended. Zero for now.
    pub(super) fn free_at(&self) -> u64 {
        let last = self.len().checked_sub(self.places);
        last.map_or(0, |last| self.under_way[last].lease_end)
    }

    /// Gives a place to a new probe, once [one is free](Self::free_at): its id, and whether others
    /// had to make way. Those are the ones that hang for longest: one, or more where fewer probes
    /// than before are allowed. What they come to is nobody's any more.
    pub(super) fn begin(&mut self, now: u64) -> (u64, bool) {
        let in_the_way = (self.len() + 1).saturating_sub(self.places);
        self.under_way.drain(..in_the_way);
        self.last += 1;
        let probe = Probe { id: self.last, lease_end: now.saturating_add(self.lease) };
        let place = self.under_way.partition_point(|other| other.lease_end <= probe.lease_end);
        self.under_way.insert(place, probe);
        (self.last, in_the_way > 0)
    }

    /// Takes a place back. False when the probe holds none any more: its result doesn't count.
    pub(super) fn end(&mut self, id: u64) -> bool {
        let place = self.under_way.iter().position(|probe| probe.id == id);
        place.map(|place| self.under_way.remove(place)).is_some()
    }

    pub(super) fn clear(&mut self) {
        self.under_way.clear();
    }
}
