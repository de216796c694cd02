(from_instruction) @definition.stage
(arg_instruction name: (_) @name) @definition.variable
