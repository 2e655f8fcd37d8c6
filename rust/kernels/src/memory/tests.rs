//! The cache against a model that does everything the slow and obvious way.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    key: u64,
    value: u64,
}

/// A cache of numbers by number, as the bindings use it.
struct Subject {
    cache: Cache<Entry>,
    left: Vec<(u64, Cause)>,
}

impl Subject {
    fn new(config: Config) -> Self {
        Self { cache: Cache::new(config).unwrap(), left: Vec::new() }
    }

    fn slot(&mut self, key: u64, now: i64) -> Option<u32> {
        let mut removed = Removed::default();
        self.cache.expire(now, &mut removed);
        self.drop(removed);
        // Few hashes, so that many keys share one.
        self.cache.find(key % 7, |_, entry| entry.key == key)
    }

    fn drop(&mut self, removed: Removed<Entry>) {
        removed.for_each(|entry, cause| self.left.push((entry.key, cause)));
    }

    fn get(&mut self, key: u64, now: i64) -> Option<u64> {
        match self.slot(key, now) {
            Some(slot) => Some(self.cache.hit(slot).value),
            None => {
                self.cache.miss();
                None
            }
        }
    }

    fn put(&mut self, key: u64, value: u64, weight: Weight, ttl: Ttl, now: i64) -> bool {
        let slot = self.slot(key, now);
        if self.cache.rejects(weight) {
            return false;
        }
        let mut removed = Removed::default();
        let entry = Entry { key, value };
        match slot {
            Some(slot) => {
                let renew = |old: &mut Entry, removed: &mut Removed<Entry>| {
                    removed.push(std::mem::replace(old, entry), Cause::Replaced);
                };
                self.cache.replace(slot, renew, weight, ttl, now, &mut removed);
            }
            None => self.cache.insert(key % 7, entry, weight, ttl, now, &mut removed),
        }
        self.drop(removed);
        true
    }

    fn keys(&self) -> Vec<u64> {
        self.cache.order().into_iter().map(|slot| self.cache.entry(slot).key).collect()
    }
}

/// LRU or SIEVE as a list of (key, value, weight, visited), oldest first.
#[derive(Default)]
struct Model {
    config: Config,
    rows: Vec<(u64, u64, Weight, bool)>,
    hand: Option<u64>,
    left: Vec<(u64, Cause)>,
}

impl Model {
    fn bytes(&self) -> u128 {
        let alone: u128 = self.rows.iter().filter(|row| row.2.owner.is_none()).map(|row| u128::from(row.2.bytes)).sum();
        let mut owners: Vec<(usize, u64)> =
            self.rows.iter().filter_map(|row| Some((row.2.owner?, row.2.bytes))).collect();
        owners.sort_unstable();
        owners.dedup_by_key(|owner| owner.0);
        alone + owners.iter().map(|owner| u128::from(owner.1)).sum::<u128>()
    }

    fn fits(&self) -> bool {
        let Config { max_entries, max_bytes, .. } = self.config;
        max_entries.is_none_or(|bound| self.rows.len() as u64 <= bound)
            && max_bytes.is_none_or(|bound| self.bytes() <= bound.into())
    }

    fn position(&self, key: u64) -> Option<usize> {
        self.rows.iter().position(|row| row.0 == key)
    }

    fn remove(&mut self, position: usize, cause: Cause) {
        if self.hand == Some(self.rows[position].0) {
            self.hand = self.rows.get(position + 1).map(|row| row.0);
        }
        self.left.push((self.rows.remove(position).0, cause));
    }

    fn victim(&mut self, keep: Option<u64>) -> usize {
        if self.config.policy == PolicyKind::Lru {
            return self.rows.iter().position(|row| Some(row.0) != keep).unwrap();
        }
        let mut position = self.hand.map_or(0, |hand| self.position(hand).unwrap());
        loop {
            let row = &mut self.rows[position];
            if !row.3 && Some(row.0) != keep {
                self.hand = Some(row.0);
                return position;
            }
            row.3 = false;
            position = (position + 1) % self.rows.len();
        }
    }

    fn touch(&mut self, position: usize) {
        self.rows[position].3 = true;
        if self.config.policy == PolicyKind::Lru {
            let row = self.rows.remove(position);
            self.rows.push(row);
        }
    }

    fn get(&mut self, key: u64) -> Option<u64> {
        let position = self.position(key)?;
        let value = self.rows[position].1;
        self.touch(position);
        Some(value)
    }

    fn put(&mut self, key: u64, value: u64, weight: Weight) -> bool {
        if self.config.max_bytes.is_some_and(|bound| weight.bytes > bound) {
            return false;
        }
        if let Some(position) = self.position(key) {
            self.left.push((key, Cause::Replaced));
            self.rows[position].1 = value;
            self.rows[position].2 = weight;
            self.touch(position);
            while !self.fits() {
                let victim = self.victim(Some(key));
                self.remove(victim, Cause::Size);
            }
            return true;
        }
        loop {
            self.rows.push((key, value, weight, false));
            let fits = self.fits();
            self.rows.pop();
            if fits {
                break;
            }
            let victim = self.victim(None);
            self.remove(victim, Cause::Size);
        }
        self.rows.push((key, value, weight, false));
        true
    }
}

#[derive(Debug, Clone)]
enum Step {
    Get(u64),
    Put(u64, Weight),
    Remove(u64),
    Pop,
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..24u64;
    let weight = (0..12u64, proptest::option::weighted(0.4, 1..5usize))
        // Everything that shares an owner says the same of it.
        .prop_map(|(bytes, owner)| Weight { bytes: owner.map_or(bytes, |owner| 3 * owner as u64), owner });
    let step = prop_oneof![
        8 => key.clone().prop_map(Step::Get),
        8 => (key.clone(), weight).prop_map(|(key, weight)| Step::Put(key, weight)),
        2 => key.prop_map(Step::Remove),
        1 => Just(Step::Pop),
        1 => Just(Step::Clear),
    ];
    proptest::collection::vec(step, 1..200)
}

fn bounds() -> impl Strategy<Value = (Option<u64>, Option<u64>)> {
    prop_oneof![
        (1..12u64).prop_map(|entries| (Some(entries), None)),
        (9..40u64).prop_map(|bytes| (None, Some(bytes))),
        (1..12u64, 9..40u64).prop_map(|(entries, bytes)| (Some(entries), Some(bytes))),
    ]
}

proptest! {
    #[test]
    fn lru_and_sieve_do_what_the_model_does(
        steps in steps(), (max_entries, max_bytes) in bounds(), sieve in any::<bool>()
    ) {
        let policy = if sieve { PolicyKind::Sieve } else { PolicyKind::Lru };
        let config = Config { max_entries, max_bytes, policy, ..Config::default() };
        let mut subject = Subject::new(config);
        let mut model = Model { config, ..Model::default() };
        for (value, step) in (0..).zip(steps) {
            match step {
                Step::Get(key) => prop_assert_eq!(subject.get(key, 0), model.get(key)),
                Step::Put(key, weight) => prop_assert_eq!(
                    subject.put(key, value, weight, Ttl::Default, 0),
                    model.put(key, value, weight)
                ),
                Step::Remove(key) => {
                    let slot = subject.slot(key, 0);
                    prop_assert_eq!(slot.is_some(), model.position(key).is_some());
                    if let Some(slot) = slot {
                        let version = subject.cache.version(slot);
                        prop_assert_eq!(subject.cache.remove(slot).key, key);
                        prop_assert_ne!(subject.cache.version(slot), version);
                        let position = model.position(key).unwrap();
                        model.remove(position, Cause::Explicit);
                        model.left.pop();
                    }
                }
                Step::Pop => {
                    let popped = subject.cache.pop().map(|entry| entry.key);
                    let victim = (!model.rows.is_empty()).then(|| model.victim(None));
                    prop_assert_eq!(popped, victim.map(|position| model.rows[position].0));
                    if let Some(position) = victim {
                        model.remove(position, Cause::Explicit);
                        model.left.pop();
                    }
                }
                Step::Clear => {
                    prop_assert_eq!(subject.cache.clear().count(), model.rows.len());
                    model.rows.clear();
                    model.hand = None;
                }
            }
            prop_assert_eq!(subject.cache.len(), model.rows.len());
            prop_assert_eq!(subject.cache.bytes(), model.bytes());
            prop_assert_eq!(subject.keys(), model.rows.iter().map(|row| row.0).collect::<Vec<_>>());
            prop_assert_eq!(&subject.left, &model.left);
        }
    }

    #[test]
    fn tinylfu_keeps_its_bounds_and_what_is_in_it(steps in steps(), (max_entries, max_bytes) in bounds()) {
        let config = Config { max_entries, max_bytes, policy: PolicyKind::TinyLfu, ..Config::default() };
        let mut subject = Subject::new(config);
        let mut values = std::collections::HashMap::new();
        for (value, step) in (0..).zip(steps) {
            match step {
                Step::Get(key) => prop_assert_eq!(subject.get(key, 0), values.get(&key).copied()),
                Step::Put(key, weight) => {
                    if subject.put(key, value, weight, Ttl::Default, 0) {
                        values.insert(key, value);
                    }
                }
                Step::Remove(key) => {
                    let slot = subject.slot(key, 0);
                    prop_assert_eq!(slot.is_some(), values.remove(&key).is_some());
                    if let Some(slot) = slot {
                        subject.cache.remove(slot);
                    }
                }
                Step::Pop => match subject.cache.pop() {
                    Some(entry) => prop_assert_eq!(values.remove(&entry.key), Some(entry.value)),
                    None => prop_assert!(values.is_empty()),
                },
                Step::Clear => {
                    subject.cache.clear().for_each(drop);
                    values.clear();
                }
            }
            for (key, cause) in std::mem::take(&mut subject.left) {
                if cause == Cause::Size {
                    prop_assert!(values.remove(&key).is_some());
                }
            }
            let mut keys = subject.keys();
            keys.sort_unstable();
            let mut expected: Vec<u64> = values.keys().copied().collect();
            expected.sort_unstable();
            prop_assert_eq!(keys, expected);
            prop_assert!(max_entries.is_none_or(|bound| subject.cache.len() as u64 <= bound));
            prop_assert!(max_bytes.is_none_or(|bound| subject.cache.bytes() <= bound.into()));
        }
    }

    #[test]
    fn entries_end_at_the_earlier_of_both_times(
        steps in proptest::collection::vec((0..16u64, 0..4u8, 0..6i64, 1..40i64), 1..200),
        ttl in proptest::option::of(1..30i64),
        tti in proptest::option::of(1..30i64),
        policy in prop_oneof![Just(PolicyKind::Lru), Just(PolicyKind::Sieve), Just(PolicyKind::TinyLfu)],
    ) {
        let timing = Timing { ttl, tti, jitter: 0.0 };
        let mut subject = Subject::new(Config { max_entries: Some(100), timing, policy, ..Config::default() });
        let mut ends: std::collections::HashMap<u64, (i64, i64)> = std::collections::HashMap::new();
        let mut now = 0;
        for (key, what, pause, own) in steps {
            now += pause;
            ends.retain(|_, (live, idle)| *live > now && *idle > now);
            let idle = tti.map_or(NEVER, |tti| now + tti);
            match what {
                0 => {
                    subject.put(key, 0, Weight::default(), Ttl::Default, now);
                    ends.insert(key, (ttl.map_or(NEVER, |ttl| now + ttl), idle));
                }
                1 => {
                    subject.put(key, 0, Weight::default(), Ttl::For(own), now);
                    ends.insert(key, (now + own, idle));
                }
                2 => {
                    subject.put(key, 0, Weight::default(), Ttl::Never, now);
                    ends.insert(key, (NEVER, idle));
                }
                _ => {
                    prop_assert_eq!(subject.get(key, now).is_some(), ends.contains_key(&key));
                    ends.entry(key).and_modify(|end| end.1 = idle);
                }
            }
            let mut keys = subject.keys();
            keys.sort_unstable();
            let mut expected: Vec<u64> = ends.keys().copied().collect();
            expected.sort_unstable();
            prop_assert_eq!(keys, expected);
        }
    }

    #[test]
    fn jitter_shortens_within_its_share(jitter in 0.0..1.0f64, seed in any::<u64>()) {
        let timing = Timing { ttl: Some(1000), tti: None, jitter };
        let mut subject = Subject::new(Config { max_entries: Some(9), timing, seed, ..Config::default() });
        for key in 0..9 {
            subject.put(key, 0, Weight::default(), Ttl::Default, 0);
            let slot = subject.slot(key, 0).unwrap();
            let live = subject.cache.remaining(slot).live;
            prop_assert!(live <= 1000 && live as f64 >= (1000.0 * (1.0 - jitter)).floor().max(1.0), "{live}");
        }
    }
}

#[test]
fn a_clock_that_goes_back_stands_still() {
    let timing = Timing { ttl: Some(10), ..Timing::default() };
    let mut subject = Subject::new(Config { max_entries: Some(9), timing, ..Config::default() });
    subject.put(1, 1, Weight::default(), Ttl::Default, 100);
    subject.put(2, 2, Weight::default(), Ttl::Default, 50);
    assert_eq!(subject.get(2, 109), Some(2));
    assert_eq!(subject.get(1, 110), None);
    assert_eq!(subject.get(2, 110), None);
    assert_eq!(subject.left, [(1, Cause::Expired), (2, Cause::Expired)]);
}

#[test]
fn a_frequent_entry_outlives_a_scan_under_tinylfu_and_not_under_lru() {
    for (policy, stays) in [(PolicyKind::TinyLfu, true), (PolicyKind::Lru, false)] {
        let mut subject = Subject::new(Config { max_entries: Some(100), policy, ..Config::default() });
        for key in 0..90 {
            subject.put(key, 0, Weight::default(), Ttl::Default, 0);
        }
        for _ in 0..5 {
            subject.get(3, 0);
        }
        for key in 1000..2000 {
            subject.put(key, 0, Weight::default(), Ttl::Default, 0);
        }
        assert_eq!(subject.get(3, 0).is_some(), stays, "{policy:?}");
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let refused = |config: Config| Cache::<Entry>::new(config).unwrap_err().to_string();
    let base = Config { max_entries: Some(1), ..Config::default() };
    assert!(refused(Config::default()).contains("at least one bound"));
    assert!(refused(Config { max_entries: Some(0), ..base }).starts_with("max_entries: 0"));
    assert!(refused(Config { max_bytes: Some(0), ..base }).starts_with("max_bytes: 0"));
    let timing = Timing { ttl: Some(0), ..Timing::default() };
    assert!(refused(Config { timing, ..base }).starts_with("ttl: 0"));
    let timing = Timing { tti: Some(-2_000_000_000), ..Timing::default() };
    assert!(refused(Config { timing, ..base }).starts_with("tti: -2"));
    for jitter in [-0.1, 1.1, f64::NAN] {
        let timing = Timing { jitter, ..Timing::default() };
        assert!(refused(Config { timing, ..base }).starts_with("ttl_jitter"));
    }
}

#[test]
fn weights_beyond_64_bits_are_counted_exactly() {
    for policy in [PolicyKind::Lru, PolicyKind::Sieve, PolicyKind::TinyLfu] {
        let half = Weight { bytes: 1 << 63, owner: None };
        let config = Config { max_entries: Some(9), policy, ..Config::default() };
        let mut subject = Subject::new(config);
        for key in 0..3 {
            assert!(subject.put(key, key, half, Ttl::Default, 0));
        }
        assert_eq!(subject.cache.bytes(), 3 << 63);
        let mut subject = Subject::new(Config { max_bytes: Some(u64::MAX - 1), ..config });
        for key in 0..3 {
            assert!(subject.put(key, key, half, Ttl::Default, 0));
            assert_eq!(subject.cache.bytes(), 1 << 63);
        }
        assert!(!subject.put(9, 9, Weight { bytes: u64::MAX, owner: None }, Ttl::Default, 0));
    }
}

#[test]
fn a_cache_is_timed_only_while_an_entry_can_end() {
    let mut subject = Subject::new(Config { max_entries: Some(9), ..Config::default() });
    let endless = Ttl::Remaining(Lifetime { live: NEVER, idle: NEVER });
    subject.put(1, 1, Weight::default(), endless, -50);
    assert!(!subject.cache.is_timed());
    for start in [-50, 100] {
        subject.put(2, 2, Weight::default(), Ttl::For(10), start);
        assert!(subject.cache.is_timed());
        assert_eq!(subject.get(2, start + 9), Some(2));
        assert_eq!(subject.get(2, start + 10), None);
        assert!(!subject.cache.is_timed());
        assert_eq!(subject.get(1, 0), Some(1), "a time that nobody reads is none");
    }
}
