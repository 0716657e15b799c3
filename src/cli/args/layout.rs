//! The flags that say how values lie in a cluster: the same for its gateways and for the tools that read and write values.

use clap::builder::PossibleValuesParser;

use crate::client::Value;
use crate::clock::unix_seconds;
use crate::gateway::item::{Item, Rules};
use crate::gateway::layout::{FlagBytes, Layout};

/// How the values of a cluster are kept.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct LayoutArgs {
    /// Values are kept with flags; the same for all gateways and tools of a cluster
    #[arg(short = 'F', long)]
    memproto_save_flag: bool,

    /// Values are kept with expiry times; the same for all gateways and tools of a cluster
    #[arg(short = 'E', long)]
    memproto_save_expire: bool,

    /// Bytes of these flags, likewise: 2 as in 2010, 4 as in memcached
    #[arg(long, value_name = "N", default_value = "2", value_parser = PossibleValuesParser::new(["2", "4"]), requires = "memproto_save_flag")]
    flag_bytes: String,
}

impl LayoutArgs {
    /// The layout of the values of such gateways.
    pub(in crate::cli) fn layout(&self) -> Layout {
        let flags = match (self.memproto_save_flag, self.flag_bytes.as_str()) {
            (false, _) => FlagBytes::Zero,
            (true, "4") => FlagBytes::Four,
            (true, _) => FlagBytes::Two,
        };
        Layout { expiry: self.memproto_save_expire, flags }
    }

    /// Likewise; `None` if no flag says so.
    pub(in crate::cli) fn given(&self) -> Option<Layout> {
        Some(self.layout()).filter(|layout| *layout != Layout::BARE)
    }
}

/// The application's bytes of a value, kept with this layout unless it names another; `None` if it has expired.
pub(in crate::cli) fn item(value: &Value, layout: Layout) -> Option<&[u8]> {
    let rules = Rules { layout, value_limit: usize::MAX };
    let item = Item::decode(value.clocktime, value.meta, &value.data, &rules);
    (!item.is_expired(unix_seconds())).then_some(item.data)
}
