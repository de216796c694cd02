; Comes after javascript.scm.
(interface_declaration name: (_) @name) @definition.interface
(type_alias_declaration name: (_) @name) @definition.type
(enum_declaration name: (_) @name) @definition.enum
(abstract_class_declaration name: (_) @name) @definition.class
(function_signature name: (_) @name) @definition.function
(internal_module name: (_) @name) @definition.namespace
(module name: (identifier) @name) @definition.namespace
(module name: (nested_identifier) @name) @definition.namespace
(module name: (string) @name) @definition.module
(ambient_declaration "global" @name) @definition.namespace

(class_body [(abstract_method_signature) (method_signature)] @definition.method)
(public_field_definition) @definition.field
(method_definition parameters: (formal_parameters
  [(required_parameter [(accessibility_modifier) (override_modifier) "readonly"])
   (optional_parameter [(accessibility_modifier) (override_modifier) "readonly"])] @definition.field))
(interface_body [(method_signature) (call_signature) (construct_signature)] @definition.method)
(interface_body [(property_signature) (index_signature)] @definition.field)
(type_alias_declaration value: [
  (object_type [
    (method_signature) @definition.method
    [(property_signature) (call_signature) (construct_signature) (index_signature)] @definition.field])
  (intersection_type (object_type [
    (method_signature) @definition.method
    [(property_signature) (call_signature) (construct_signature) (index_signature)] @definition.field]))])
(enum_body [(enum_assignment) (property_identifier) (string)] @definition.member)

; What a namespace holds
(statement_block [
  (export_statement declaration: (lexical_declaration (variable_declarator) @definition.variable))
  (export_statement declaration: (variable_declaration (variable_declarator) @definition.variable))])
(internal_module body: (statement_block [
  (lexical_declaration (variable_declarator) @definition.variable)
  (variable_declaration (variable_declarator) @definition.variable)]))
(module body: (statement_block [
  (lexical_declaration (variable_declarator) @definition.variable)
  (variable_declaration (variable_declarator) @definition.variable)]))
(ambient_declaration (statement_block [
  (lexical_declaration (variable_declarator) @definition.variable)
  (variable_declaration (variable_declarator) @definition.variable)]))
(ambient_declaration [
  (lexical_declaration (variable_declarator) @definition.variable)
  (variable_declaration (variable_declarator) @definition.variable)])
; Scopes, what is bound in them, and imports.
[(abstract_class_declaration) (interface_declaration)] @local.class
(required_parameter pattern: (_) @local type: (_)? @local.type)
(optional_parameter pattern: (_) @local type: (_)? @local.type)
(required_parameter (accessibility_modifier) pattern: (identifier) @local.field type: (_) @local.type)
(variable_declarator name: (_) @local type: (_) @local.type)
(public_field_definition name: (property_identifier) @local type: (_)? @local.type value: (_)? @local.value)
(property_signature name: (property_identifier) @local type: (_) @local.type)
