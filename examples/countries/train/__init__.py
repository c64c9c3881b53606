"""How the demo's small model is trained: stages that the paper's recipe does not have.

    stages         the command; sizes: sizes and steps of every stage; stage_loop: the loop of a stage
    tower          stage vision, with discriminant (LDA)
    base           stage base, with base_mixture, base_loss, base_lora
    reading        stage reading, with qformer_init and hidden_states; warmup: stage warmup; both with notes_loss
    adapter_data   stages knowledge and samples: the data of the last step, the paper's own training (`jobs.train`)
    notes          what a memory is to hold, computed from word embeddings: the bridge between base and adapter
    clip           the retriever's CLIP model, with clip_data
    ship           copies the weights of a finished training into the repository

The rest are tools: country_samples, image_cache, packing, prefetch, compilation.
"""
