"""What makes a knowledge item of a source row: readers, images, rules, shards; and items by `item_id`."""
