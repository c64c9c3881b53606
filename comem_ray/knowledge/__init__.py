"""From source rows to knowledge items (readers, images, rules, shards), and items by `item_id`."""
