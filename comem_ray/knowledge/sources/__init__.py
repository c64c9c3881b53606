"""Readers of the sources of a knowledge base: files of WIT, JSONL, and what other projects leave on disk.

    wit_tsv, wit_parquet, jsonl     have fixed columns
    webdataset, img2dataset, hf_dataset, image_folder, clip_retrieval
                                    give rows of named values (named_rows.py); the last brings embeddings along

A streaming reader (`chunks`) cuts a source file into chunks of rows, and each chunk is parsed on its own. Every row of
a source has exactly one outcome: it becomes an item, it is rejected with a reason, or it repeats an earlier row.
Reason codes of rejected rows:

    source    source_empty, source_unreadable (retryable), header_missing, header_columns, parquet_corrupt,
              parquet_columns, gz_truncated, gz_corrupt, tar_truncated, tar_corrupt, arrow_corrupt, arrow_columns,
              embedding_missing, embedding_rows, embedding_corrupt: the rows before the break are kept, the break is
              one row
    row       empty_line, column_count, unclosed_quote, quoted_too_long, row_too_long, bad_utf8, nul_byte,
              json_invalid, json_type, csv_invalid, value_type, language_invalid, field_too_long, item_id_invalid,
              no_text, no_image, download_failed, embedding_not_finite, embedding_zero
    image     image_... (comem_ray.knowledge.images), image_data_uri, image_missing (retryable), image_outside,
              fetch_... (comem_ray.knowledge.fetch)
"""
