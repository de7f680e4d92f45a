//! Which CPUs serve: what the settings of `[cores]` mean on a host.

use std::collections::BTreeSet;

use super::topology::Topology;
use crate::config::broker::CoresConfig;
use crate::config::kind::CoreSelection;

/// What a choice depends on beside the settings.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    /// CPUs that the process may run on, in order.
    pub usable: &'a [usize],
    /// How many CPUs' worth of time it is granted, when that is limited.
    pub quota: Option<f64>,
    /// How they belong together.
    pub topology: &'a Topology,
}

impl Offer<'_> {
    /// Whole CPUs of the quota, at least one.
    #[must_use]
    pub fn granted(&self) -> usize {
        let whole = |quota: f64| (quota.ceil() as usize).max(1);
        self.quota.map_or(self.usable.len(), whole)
    }

    /// What `auto` and a count choose from: without the reserved cores, which are the first ones,
    /// since the kernel sends interrupts there; and with one hyperthread of each core if asked for.
    fn free(&self, config: &CoresConfig) -> Vec<usize> {
        let mut cores: Vec<usize> = Vec::new();
        for cpu in self.usable {
            let core = self.topology.core_of(*cpu);
            if !cores.contains(&core) {
                cores.push(core);
            }
        }
        let reserved: BTreeSet<usize> = cores.into_iter().take(config.reserved).collect();
        let mut seen = BTreeSet::new();
        let mut free = self.usable.to_vec();
        free.retain(|cpu| {
            let core = self.topology.core_of(*cpu);
            !reserved.contains(&core) && (config.hyperthreads || seen.insert(core))
        });
        free
    }
}

/// The CPUs that serve, one for each core of the broker, in order.
///
/// # Errors
/// A sentence that names the setting and what to do.
pub fn select(config: &CoresConfig, offer: &Offer<'_>) -> Result<Vec<usize>, String> {
    let usable = offer.usable;
    let cpus: Vec<usize> = match &config.list {
        CoreSelection::List(list) => {
            if config.reserved > 0 || !config.hyperthreads {
                return Err(
                    "cores.list names every CPU, so cores.reserved and cores.hyperthreads have \
                     nothing to choose: remove them, or set cores.list=auto"
                        .to_owned(),
                );
            }
            list.iter().map(|cpu| usize::from(*cpu)).collect()
        }
        selection => {
            let free = offer.free(config);
            if free.is_empty() {
                return Err(format!(
                    "cores.reserved={} leaves none of the CPUs {usable:?}: lower it",
                    config.reserved
                ));
            }
            match selection {
                CoreSelection::Count(count) => counted(usize::from(*count), &free, config)?,
                _ => free.into_iter().take(offer.granted()).collect(),
            }
        }
    };
    let is_missing = |cpu: &&usize| config.pin && !usable.contains(cpu);
    if let Some(missing) = cpus.iter().find(is_missing) {
        return Err(format!(
            "cores.list names core {missing}, this process may use {usable:?}"
        ));
    }
    Ok(cpus)
}

fn counted(count: usize, free: &[usize], config: &CoresConfig) -> Result<Vec<usize>, String> {
    if count > free.len() && config.pin {
        return Err(format!(
            "cores.list asks for {count} cores, this process may use {}: {free:?}; \
             lower it, or set cores.pin=false",
            free.len()
        ));
    }
    Ok((0..count).map(|index| free[index % free.len()]).collect())
}

#[cfg(test)]
mod tests {
    use super::super::fake_host::FakeHost;
    use super::*;
    use crate::config::broker::BrokerConfig;
    use crate::config::sources::Sources;

    fn cores(sets: &[&str]) -> CoresConfig {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let sources = Sources {
            sets: &sets,
            ..Sources::default()
        };
        BrokerConfig::load(&sources).expect("valid settings").cores
    }

    /// Four cores of two hyperthreads: 0 and 4, 1 and 5, 2 and 6, 3 and 7.
    fn choose(sets: &[&str], quota: Option<f64>) -> Result<Vec<usize>, String> {
        let host = FakeHost::new();
        for cpu in 0..8 {
            let path = format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            host.put(&path, &format!("{},{}\n", cpu % 4, cpu % 4 + 4));
        }
        let usable: Vec<usize> = (0..8).collect();
        let topology = Topology::read(&host.tree(), &usable);
        let offer = Offer {
            usable: &usable,
            quota,
            topology: &topology,
        };
        select(&cores(sets), &offer)
    }

    #[test]
    fn all_cpus_serve_unless_reserved_or_limited() {
        assert_eq!(choose(&[], None), Ok((0..8).collect()));
        assert_eq!(choose(&[], Some(1.5)), Ok(vec![0, 1]));
        assert_eq!(choose(&["cores.list=3"], None), Ok(vec![0, 1, 2]));
        assert_eq!(
            choose(&["cores.reserved=1"], None),
            Ok(vec![1, 2, 3, 5, 6, 7])
        );
        let one_each = ["cores.reserved=1", "cores.hyperthreads=false"];
        assert_eq!(choose(&one_each, None), Ok(vec![1, 2, 3]));
        assert_eq!(choose(&["cores.list=1,6"], None), Ok(vec![1, 6]));
        let floating = ["cores.list=12", "cores.pin=false"];
        assert_eq!(choose(&floating, None).map(|cpus| cpus.len()), Ok(12));
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_its_name() {
        for (sets, said) in [
            (&["cores.reserved=4"][..], "cores.reserved=4"),
            (&["cores.list=9"], "cores.pin=false"),
            (&["cores.list=7-8"], "core 8"),
            (&["cores.list=0-3", "cores.reserved=1"], "cores.list=auto"),
            (&["cores.list=7", "cores.reserved=1"], "asks for 7"),
        ] {
            let error = choose(sets, None).expect_err(said);
            assert!(error.contains(said), "{sets:?}: {error}");
        }
    }
}
