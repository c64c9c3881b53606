"""Official scoring rules, a module per rule. They know neither models nor files."""
